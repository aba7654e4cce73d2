#include "src/train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "src/io/atomic_file.h"
#include "src/io/hdf5_file.h"
#include "src/train/checkpoint_manifest.h"
#include "src/train/together.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kRowsAtOnce = 65536;
constexpr int kKeptCheckpoints = 2;

/// A matrix of a shard under the name it has in files; empty ones are not written.
struct NamedMatrix {
  const char* name;
  MatrixView<float> matrix;
};

std::vector<NamedMatrix> matrices_of(const LocalShard& local) {
  std::vector<NamedMatrix> matrices{{"weights", local.weights}};
  if (local.state.data) matrices.push_back({"state", local.state});
  if (local.second_moment.data) matrices.push_back({"second_moment", local.second_moment});
  return matrices;
}

std::vector<NamedMatrix> matrices_of(DenseParameters& dense) {
  const auto row = [&](std::span<float> values) {
    return MatrixView<float>{values.data(), 1, dense.size()};
  };
  return {{"values", row(dense.values())},
          {"first_moment", row(dense.first_moment())},
          {"second_moment", row(dense.second_moment())}};
}

// ---- writing ----------------------------------------------------------------------------------

void write_matrix(Hdf5File& file, const std::string& name, MatrixView<float> matrix,
                  const Stream& stream) {
  auto dataset = file.create_dataset<float>(name, {matrix.rows, matrix.cols});
  std::vector<float> host;
  for (std::int64_t begin = 0; begin < matrix.rows; begin += kRowsAtOnce) {
    const std::int64_t end = std::min(begin + kRowsAtOnce, matrix.rows);
    host.resize(static_cast<std::size_t>((end - begin) * matrix.cols));
    copy_matrix(matrix.middle_rows(begin, end), {host.data(), end - begin, matrix.cols}, stream);
    stream.synchronize();
    dataset.write_rows<float>(begin, end, host);
  }
}

void write_rank_file(const std::string& path, const CheckpointParts& parts, int rank,
                     const Stream& stream) {
  Hdf5File file = Hdf5File::create(path);
  std::int64_t num_shards = 0;
  for (const LocalShard& local : parts.embedding.local_shards()) {
    const ShardingType type = sharding_of(parts.embedding.plan(), local.table).type;
    if (type == ShardingType::kDataParallel && rank > 0) continue;  // rank 0 writes the replica
    const std::string group = fmt::format("/shards/{}", num_shards++);
    file.create_group(group);
    file.write_attribute(group, "table", local.table);
    file.write_attribute(group, "row_begin", local.shard.row_begin);
    file.write_attribute(group, "row_end", local.shard.row_end);
    file.write_attribute(group, "column_begin", local.shard.column_begin);
    file.write_attribute(group, "column_end", local.shard.column_end);
    for (const auto& [name, matrix] : matrices_of(local)) {
      write_matrix(file, group + "/" + name, matrix, stream);
    }
  }
  file.write_attribute("/", "num_shards", num_shards);
  if (rank == 0) {
    for (const auto& [name, matrix] : matrices_of(parts.dense)) {
      write_matrix(file, fmt::format("/dense/{}", name), matrix, stream);
    }
  }
  file.close();
  sync_path(path);
}

// ---- reading ----------------------------------------------------------------------------------

Hdf5Block overlap(const Hdf5Block& a, const Hdf5Block& b) {
  return {.row_begin = std::max(a.row_begin, b.row_begin),
          .row_end = std::min(a.row_end, b.row_end),
          .column_begin = std::max(a.column_begin, b.column_begin),
          .column_end = std::min(a.column_end, b.column_end)};
}

std::int64_t area(const Hdf5Block& block) {
  return std::max<std::int64_t>(block.row_end - block.row_begin, 0) *
         std::max<std::int64_t>(block.column_end - block.column_begin, 0);
}

/// Copies the part of a stored matrix that `matrix` covers too; `stored` and `wanted` are the two
/// rectangles of the table.
void read_overlap(const Hdf5Dataset& dataset, const Hdf5Block& stored, const Hdf5Block& wanted,
                  MatrixView<float> matrix, const Stream& stream) {
  const Hdf5Block both = overlap(stored, wanted);
  const std::int64_t columns = both.column_end - both.column_begin;
  if (area(both) == 0) return;
  std::vector<float> host;
  for (std::int64_t begin = both.row_begin; begin < both.row_end; begin += kRowsAtOnce) {
    const std::int64_t end = std::min(begin + kRowsAtOnce, both.row_end);
    host.resize(static_cast<std::size_t>((end - begin) * columns));
    dataset.read_block<float>({.row_begin = begin - stored.row_begin,
                               .row_end = end - stored.row_begin,
                               .column_begin = both.column_begin - stored.column_begin,
                               .column_end = both.column_end - stored.column_begin},
                              host);
    copy_matrix({host.data(), end - begin, columns},
                matrix.middle_rows(begin - wanted.row_begin, end - wanted.row_begin)
                    .columns(both.column_begin - wanted.column_begin,
                             both.column_end - wanted.column_begin),
                stream);
    stream.synchronize();
  }
}

/// A checkpoint of another model or dataset leaves rows unread or has rows too many.
void check_fits(const Hdf5File& file, const std::string& table, const Hdf5Block& stored,
                const ShardedEmbedding& embedding) {
  for (const EmbeddingTable& t : embedding.tables()) {
    if (t.name != table) continue;
    if (stored.row_end <= t.num_rows && stored.column_end <= t.dim) return;
    throw usage_error(fmt::format(
        "{}: table \"{}\" reaches to row {} and column {} (the model has {} x {}; is it another "
        "dataset?)",
        file.path(), table, stored.row_end, stored.column_end, t.num_rows, t.dim));
  }
  throw usage_error(fmt::format("{}: the model has no table \"{}\"", file.path(), table));
}

/// Adds the values read to `num_read`, by the position of the local shard.
void read_shards(const Hdf5File& file, const CheckpointParts& parts,
                 std::vector<std::int64_t>& num_read, const Stream& stream) {
  const std::int64_t num_shards = file.read_integer("/", "num_shards");
  for (std::int64_t i = 0; i < num_shards; ++i) {
    const std::string group = fmt::format("/shards/{}", i);
    const std::string table = file.read_text(group, "table");
    Hdf5Block stored{.row_begin = file.read_integer(group, "row_begin"),
                     .row_end = file.read_integer(group, "row_end"),
                     .column_begin = file.read_integer(group, "column_begin"),
                     .column_end = file.read_integer(group, "column_end")};
    check_fits(file, table, stored, parts.embedding);
    const auto locals = parts.embedding.local_shards();
    for (std::size_t l = 0; l < locals.size(); ++l) {
      const LocalShard& local = locals[l];
      if (local.table != table) continue;
      const Hdf5Block wanted{.row_begin = local.shard.row_begin,
                             .row_end = local.shard.row_end,
                             .column_begin = local.shard.column_begin,
                             .column_end = local.shard.column_end};
      num_read[l] += area(overlap(stored, wanted));
      for (const auto& [name, matrix] : matrices_of(local)) {
        Hdf5Block from = stored, to = wanted;
        const auto dataset = file.dataset<float>(group + "/" + name);
        if (dataset.columns() == 1 && matrix.cols == 1) {  // one value a row, on every column shard
          from.column_begin = to.column_begin = 0;
          from.column_end = to.column_end = 1;
        }
        read_overlap(dataset, from, to, matrix, stream);
      }
    }
  }
}

void read_dense(const Hdf5File& file, DenseParameters& dense, const Stream& stream) {
  const Hdf5Block all{.row_begin = 0, .row_end = 1, .column_begin = 0, .column_end = dense.size()};
  for (const auto& [name, matrix] : matrices_of(dense)) {
    const auto dataset = file.dataset<float>(fmt::format("/dense/{}", name));
    if (dataset.columns() != dense.size()) {
      throw usage_error(fmt::format("{}: {} dense parameters (the model has {})", file.path(),
                                    dataset.columns(), dense.size()));
    }
    read_overlap(dataset, all, all, matrix, stream);
  }
}

void remove_older(const std::string& directory) {
  const auto found = list_checkpoints(directory);
  for (std::size_t i = kKeptCheckpoints; i < found.size(); ++i) fs::remove_all(found[i].path);
}

}  // namespace

void save_checkpoint(const std::string& directory, std::int64_t step, const CheckpointParts& parts,
                     Communicator& communicator, const Stream& stream) {
  const int rank = communicator.rank();
  const std::string final_path = fmt::format("{}/step_{}", directory, step);
  const std::string temporary = fmt::format("{}/tmp.step_{}", directory, step);
  together(communicator, "checkpoint: make folder", [&] {
    if (rank > 0) return;
    fs::remove_all(temporary);
    fs::create_directories(temporary);
  });

  ManifestFile written{.name = fmt::format("rank{}.h5", rank)};
  together(communicator, "checkpoint: write", [&] {
    const std::string path = temporary + "/" + written.name;
    write_rank_file(path, parts, rank, stream);
    written = describe_file(path);
  });
  Manifest manifest{.step = step, .files = {}};
  for (const std::string& text :
       communicator.gather_strings("checkpoint: files", to_json(written))) {
    manifest.files.push_back(manifest_file_from_json(text));
  }

  together(communicator, "checkpoint: commit", [&] {
    if (rank > 0) return;
    write_manifest(temporary, manifest);
    sync_path(temporary);
    fs::remove_all(final_path);
    fs::rename(temporary, final_path);
    sync_path(directory);
    remove_older(directory);
  });
}

std::int64_t load_checkpoint(const std::string& directory, const CheckpointParts& parts,
                             Communicator& communicator, const Stream& stream) {
  std::int64_t chosen = -1;  // its step
  together(communicator, "checkpoint: choose", [&] {
    if (communicator.rank() == 0) chosen = newest_intact_checkpoint(directory).step;
  });
  communicator.broadcast<std::int64_t>("checkpoint: step", {&chosen, 1}, 0, Stream());

  together(communicator, "checkpoint: read", [&] {
    const std::string path = fmt::format("{}/step_{}", directory, chosen);
    const auto locals = parts.embedding.local_shards();
    std::vector<std::int64_t> num_read(locals.size(), 0);
    for (const ManifestFile& entry : read_manifest(path).files) {
      const Hdf5File file = Hdf5File::open(path + "/" + entry.name);
      read_shards(file, parts, num_read, stream);
      if (file.contains("/dense/values")) read_dense(file, parts.dense, stream);
    }
    for (std::size_t l = 0; l < locals.size(); ++l) {
      if (num_read[l] == locals[l].weights.rows * locals[l].weights.cols) continue;
      throw usage_error(fmt::format("{}: rows of table \"{}\" are missing (is it another dataset?)",
                                    path, locals[l].table));
    }
  });
  return chosen;
}

}  // namespace serrate
