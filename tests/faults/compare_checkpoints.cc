#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"
#include "src/core/json.h"
#include "src/io/hdf5_file.h"
#include "src/io/text_file.h"

/// Compares two checkpoints tensor by tensor, whatever ranks and plans wrote them: it puts whole
/// tables together from the shards in the rank files, by docs/checkpoint_format.md and without the
/// code that loads checkpoints.
/// usage: compare_checkpoints STEP_FOLDER STEP_FOLDER [TOLERANCE]
/// Without a tolerance the bits have to be the same; with one, values may differ by that times the
/// tensor's largest magnitude. Exit codes: 0 same, 1 different, 2 one of them is not complete.

namespace serrate {
namespace {

namespace fs = std::filesystem;

struct Tensor {
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::vector<float> values;  // [rows, columns]
  std::vector<char> is_set;   // of each value
};
using Tensors = std::map<std::string, Tensor>;

std::uint32_t bits(float value) {
  return std::bit_cast<std::uint32_t>(value);
}

/// Puts values [rows, columns] at (row, column) of a tensor, which grows.
void put(Tensor& tensor, const std::string& name, std::int64_t row, std::int64_t column,
         std::int64_t rows, std::int64_t columns, const std::vector<float>& values) {
  Tensor grown;
  grown.rows = std::max(tensor.rows, row + rows);
  grown.columns = std::max(tensor.columns, column + columns);
  if (grown.rows != tensor.rows || grown.columns != tensor.columns) {
    grown.values.resize(static_cast<std::size_t>(grown.rows * grown.columns));
    grown.is_set.resize(grown.values.size());
    for (std::int64_t r = 0; r < tensor.rows; ++r) {
      std::copy_n(tensor.values.begin() + r * tensor.columns, tensor.columns,
                  grown.values.begin() + r * grown.columns);
      std::copy_n(tensor.is_set.begin() + r * tensor.columns, tensor.columns,
                  grown.is_set.begin() + r * grown.columns);
    }
    tensor = std::move(grown);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < columns; ++c) {
      const std::size_t at = (row + r) * tensor.columns + column + c;
      const float value = values[r * columns + c];
      if (tensor.is_set[at] && bits(tensor.values[at]) != bits(value)) {
        throw Error(
            fmt::format("{} [{}, {}] appears twice with two values", name, row + r, column + c));
      }
      tensor.values[at] = value;
      tensor.is_set[at] = 1;
    }
  }
}

using Types = std::map<std::string, std::string>;  // of each table's weights

Types types_of_tables(const std::string& folder) {
  const std::string path = folder + "/MANIFEST.json";
  const auto manifest = parse_json(read_text_file(path), path);
  Types types;
  for (const auto& table : manifest.at("tables")) {
    types[table.at("name")] = table.value("data_type", "fp32");
  }
  return types;
}

/// A matrix [rows, columns] of some type, whose values float32 has.
template <typename T>
Tensor widened(const Hdf5File& file, const std::string& name) {
  const auto dataset = file.dataset<T>(name);
  Tensor matrix{.rows = dataset.rows(), .columns = dataset.columns(), .values = {}, .is_set = {}};
  for (const T value : file.read<T>(name)) matrix.values.push_back(static_cast<float>(value));
  return matrix;
}

Tensor read_matrix(const Hdf5File& file, const std::string& name, const std::string& type) {
  if (type == "fp16") return widened<Float16>(file, name);
  if (type == "bf16") return widened<BFloat16>(file, name);
  return widened<float>(file, name);
}

void read_rank_file(const std::string& path, const Types& types, Tensors& tensors) {
  const Hdf5File file = Hdf5File::open(path);
  const auto take = [&](const std::string& dataset, const std::string& tensor, std::int64_t row,
                        std::int64_t column, const std::string& type = "fp32") {
    if (!file.contains(dataset)) return;
    const Tensor matrix = read_matrix(file, dataset, type);
    const bool one_a_row = matrix.columns == 1;  // and on every column shard
    put(tensors[tensor], tensor, row, one_a_row ? 0 : column, matrix.rows, matrix.columns,
        matrix.values);
  };
  for (int i = 0; file.contains(fmt::format("/shards/{}", i)); ++i) {
    const std::string group = fmt::format("/shards/{}", i);
    const std::string table = file.read_text(group, "table");
    for (const std::string part : {"weights", "state", "second_moment"}) {
      take(group + "/" + part, table + "." + part, file.read_integer(group, "row_begin"),
           file.read_integer(group, "column_begin"), part == "weights" ? types.at(table) : "fp32");
    }
  }
  const auto path_of = [](int i) { return fmt::format("/tensors/{}/{}", i / 64, i % 64); };
  for (int i = 0; file.contains(path_of(i)); ++i) {
    const std::string dataset = path_of(i);
    take(dataset, "tensor " + file.read_text(dataset, "name"), 0, 0);
  }
}

Tensors read_checkpoint(const std::string& folder) {
  const Types types = types_of_tables(folder);
  Tensors tensors;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".h5") read_rank_file(entry.path(), types, tensors);
  }
  if (tensors.empty()) throw Error(folder + " has no rank files");
  for (const auto& [name, tensor] : tensors) {
    if (std::count(tensor.is_set.begin(), tensor.is_set.end(), 0) == 0) continue;
    throw Error(fmt::format("{}: {} has holes", folder, name));
  }
  return tensors;
}

/// A softmax does not depend on the bias of the keys, whose gradient is rounding noise that Adam
/// blows up to steps of the learning rate: only its bits can be compared.
bool is_key_bias(const std::string& name, std::size_t i, std::size_t size) {
  return name.ends_with("qkv.bias") && i >= size / 3 && i < size / 3 * 2;
}

/// What differs most between two tensors, relative to the larger magnitude; infinite when the
/// shapes or, without a tolerance, any bits differ.
double difference(const std::string& name, const Tensor& a, const Tensor& b, double tolerance) {
  if (a.rows != b.rows || a.columns != b.columns) return INFINITY;
  const std::size_t bytes = a.values.size() * sizeof(float);
  if (std::memcmp(a.values.data(), b.values.data(), bytes) == 0) return 0;
  if (tolerance == 0) return INFINITY;
  double largest = 0, apart = 0;
  for (std::size_t i = 0; i < a.values.size(); ++i) {
    if (is_key_bias(name, i, a.values.size())) continue;
    largest = std::max<double>({largest, std::fabs(a.values[i]), std::fabs(b.values[i])});
    apart = std::max(apart, std::fabs(double{a.values[i]} - double{b.values[i]}));
  }
  return std::isfinite(apart) ? apart / largest : INFINITY;
}

int compare(const Tensors& a, const Tensors& b, double tolerance) {
  double worst = 0;
  int exit_code = 0;
  for (const auto* tensors : {&a, &b}) {
    for (const auto& [name, tensor] : *tensors) {
      if (a.contains(name) && b.contains(name)) continue;
      fmt::print("{} is in one of them\n", name);
      exit_code = 1;
    }
  }
  for (const auto& [name, tensor] : a) {
    if (!b.contains(name)) continue;
    const double apart = difference(name, tensor, b.at(name), tolerance);
    worst = std::max(worst, apart);
    if (apart <= tolerance) continue;
    fmt::print("{} differs by {:.3g} of its largest magnitude\n", name, apart);
    exit_code = 1;
  }
  if (exit_code == 0) fmt::print("{} tensors, at most {:.3g} apart\n", a.size(), worst);
  return exit_code;
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  try {
    return serrate::compare(serrate::read_checkpoint(argv[1]), serrate::read_checkpoint(argv[2]),
                            argc > 3 ? std::atof(argv[3]) : 0);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
}
