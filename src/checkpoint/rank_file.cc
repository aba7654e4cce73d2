#include "src/checkpoint/rank_file.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <map>
#include <optional>

#include "src/checkpoint/finite_pieces.h"
#include "src/checkpoint/folder.h"
#include "src/io/hdf5_file.h"

namespace serrate {
namespace {

/// Where the tensor at a position of the manifest's list is. HDF5 takes time that grows with the
/// square of what a group holds.
std::string tensor_path(std::size_t position) {
  constexpr std::size_t kInGroup = 64;
  return fmt::format("/tensors/{}/{}", position / kInGroup, position % kInGroup);
}

/// Opens a file of a checkpoint, which has to be the one of the manifest.
Hdf5File open_rank_file(const std::string& checkpoint, const Manifest& manifest, std::size_t rank) {
  const std::string path = checkpoint + "/" + rank_file_name(rank);
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) fail_read(path, errno);
  if (!S_ISREG(status.st_mode)) throw usage_error(fmt::format("{} is not a plain file", path));
  const ManifestFile& expected = manifest.files[rank];
  if (status.st_size != expected.bytes) {
    throw usage_error(fmt::format("{} has {} bytes, and {} when it was written", path,
                                  static_cast<std::int64_t>(status.st_size), expected.bytes));
  }
  Hdf5File file = Hdf5File::open(path, kind_of_damage);
  if (file.digest() != expected.digest) {
    throw usage_error(
        fmt::format("{} has the digest {}, and {} when it was written (it is of another "
                    "checkpoint)",
                    path, file.digest(), expected.digest));
  }
  return file;
}

template <typename T>
void write_matrix(Hdf5File& file, const std::string& name, DeviceMatrix<const T> matrix,
                  const std::atomic<bool>& cancelled, const Stream& stream) {
  auto dataset = file.create_dataset<T>(name, {matrix.rows, matrix.cols});
  std::vector<T> host;
  for_each_piece(matrix.rows, matrix.cols, [&](std::int64_t begin, std::int64_t end) {
    if (cancelled) throw Error(fmt::format("{}: writing was given up", file.path()));
    const DeviceMatrix<const T> rows = matrix.middle_rows(begin, end);
    if (rows.stride == rows.cols && stream.device().type == DeviceType::kCpu) {
      dataset.template write_rows<T>(begin, end, host_view(rows.flat(), stream));
      return;
    }
    host.resize(static_cast<std::size_t>(rows.rows * rows.cols));
    copy_to_host<T>(rows, MatrixView<T>(host.data(), rows.rows, rows.cols), stream);
    dataset.template write_rows<T>(begin, end, host);
  });
}

/// A dataset that has to have the shape the manifest gives it.
template <typename T>
Hdf5Dataset open_matrix(const Hdf5File& file, const std::string& name, std::int64_t rows,
                        std::int64_t columns) {
  auto dataset = file.dataset<T>(name);
  if (dataset.rows() != rows || dataset.columns() != columns) {
    throw usage_error(fmt::format("{}: {} is {} x {} (its manifest says {} x {})", file.path(),
                                  name, dataset.rows(), dataset.columns(), rows, columns));
  }
  return dataset;
}

/// Reads a block and checks that it is finite.
template <typename T>
void read_finite(const Hdf5File& file, const Hdf5Dataset& dataset, const Hdf5Block& block,
                 std::span<T> values) {
  dataset.read_block<T>(block, values);
  if (all_finite<T>(values)) return;
  const auto [row, value] = first_not_finite<T>(values, block.column_end - block.column_begin);
  throw usage_error(fmt::format("{}: row {} of {} is {}", file.path(), block.row_begin + row,
                                dataset.name(), value));
}

/// Copies the part of a stored matrix that `matrix` covers too; `stored` and `wanted` are the two
/// rectangles of the table.
template <typename T>
void read_overlap(const Hdf5File& file, const Hdf5Dataset& dataset, const Rectangle& stored,
                  const Rectangle& wanted, DeviceMatrix<T> matrix, const Stream& stream) {
  const Rectangle both = overlap(stored, wanted);
  const std::int64_t columns = both.num_columns();
  std::vector<T> host;
  for_each_piece(both.num_rows(), columns, [&](std::int64_t begin, std::int64_t end) {
    host.resize(static_cast<std::size_t>((end - begin) * columns));
    const std::int64_t first = both.row_begin + begin, last = both.row_begin + end;
    read_finite<T>(file, dataset,
                   {.row_begin = first - stored.row_begin,
                    .row_end = last - stored.row_begin,
                    .column_begin = both.column_begin - stored.column_begin,
                    .column_end = both.column_end - stored.column_begin},
                   host);
    copy_from_host(MatrixView<const T>(host.data(), end - begin, columns),
                   matrix.middle_rows(first - wanted.row_begin, last - wanted.row_begin)
                       .columns(both.column_begin - wanted.column_begin,
                                both.column_end - wanted.column_begin),
                   stream);
    stream.synchronize();
  });
}

/// Values that there is one of for every row: every shard of the row has it, and they agree.
struct RowState {
  std::vector<float> values;  // of the rows of a local shard
  std::vector<bool> known;

  explicit RowState(std::int64_t rows)
      : values(static_cast<std::size_t>(rows)), known(static_cast<std::size_t>(rows), false) {}

  void read(const Hdf5File& file, const Hdf5Dataset& dataset, const Rectangle& stored,
            const Rectangle& wanted) {
    const std::int64_t begin = std::max(stored.row_begin, wanted.row_begin);
    const std::int64_t end = std::min(stored.row_end, wanted.row_end);
    std::vector<float> found(static_cast<std::size_t>(end - begin));
    read_finite<float>(file, dataset,
                       {.row_begin = begin - stored.row_begin, .row_end = end - stored.row_begin},
                       found);
    for (std::int64_t row = begin; row < end; ++row) {
      const auto to = static_cast<std::size_t>(row - wanted.row_begin);
      const float value = found[static_cast<std::size_t>(row - begin)];
      if (known[to] &&
          std::bit_cast<std::uint32_t>(value) != std::bit_cast<std::uint32_t>(values[to])) {
        throw usage_error(
            fmt::format("{}: {} of row {} is {}, and {} with other columns of the row", file.path(),
                        dataset.name(), row, value, values[to]));
      }
      values[to] = value;
      known[to] = true;
    }
  }
};

struct LocalPart {
  LocalShard shard;
  Rectangle part;
  std::vector<OutputMatrix> matrices;  // in the order of matrix_kinds()
  RowState row_state;
};

/// This rank's shards by table.
using LocalParts = std::map<std::string, std::vector<LocalPart>>;

LocalParts local_parts(ShardedEmbedding& embedding) {
  LocalParts parts;
  for (const LocalShard& local : embedding.local_shards()) {
    const Shard& s = local.shard;
    parts[local.table].push_back({.shard = local,
                                  .part = {s.row_begin, s.row_end, s.column_begin, s.column_end},
                                  .matrices = {local.weights, local.state, local.second_moment},
                                  .row_state = RowState(s.num_rows())});
  }
  return parts;
}

bool share_rows(const Rectangle& a, const Rectangle& b) {
  return std::max(a.row_begin, b.row_begin) < std::min(a.row_end, b.row_end);
}

/// Whether a part of this rank's is read from a stored shard of its table.
bool needs(const LocalPart& local, const Rectangle& stored, bool row_state) {
  return row_state ? share_rows(local.part, stored) : !is_empty(overlap(local.part, stored));
}

bool needs_any(const LocalParts& parts, const ManifestShard& stored, bool row_state) {
  const auto table = parts.find(stored.table);
  return table != parts.end() && std::ranges::any_of(table->second, [&](const LocalPart& local) {
           return needs(local, stored.part, row_state);
         });
}

void read_shard(const Hdf5File& file, std::size_t number, const Rectangle& stored,
                const std::vector<MatrixKind>& kinds, std::vector<LocalPart>& parts,
                const Stream& stream) {
  const std::string group = fmt::format("/shards/{}", number);
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    const bool one_a_row = kinds[k].one_a_row;
    std::optional<Hdf5Dataset> dataset;  // opened when the first part needs it
    for (LocalPart& local : parts) {
      if (!needs(local, stored, one_a_row)) continue;
      if (!dataset) {
        dataset = with_any_elements(local.matrices[k], [&]<typename T>(const DeviceMatrix<T>&) {
          return open_matrix<T>(file, fmt::format("{}/{}", group, kinds[k].name), stored.num_rows(),
                                one_a_row ? 1 : stored.num_columns());
        });
      }
      if (one_a_row) {
        local.row_state.read(file, *dataset, stored, local.part);
      } else {
        with_any_elements(local.matrices[k], [&](const auto& matrix) {
          read_overlap(file, *dataset, stored, local.part, matrix, stream);
        });
      }
    }
  }
}

void read_tensors(const Hdf5File& file, const Manifest& manifest, const CheckpointState& state,
                  const Stream& stream) {
  for (std::size_t i = 0; i < manifest.tensors.size(); ++i) {
    const ManifestTensor& stored = manifest.tensors[i];
    const auto found = std::ranges::find(state.tensors, stored.name, &CheckpointTensor::name);
    if (found == state.tensors.end()) continue;
    const Rectangle all{0, stored.rows, 0, stored.columns};
    read_overlap(file, open_matrix<float>(file, tensor_path(i), stored.rows, stored.columns), all,
                 all, found->values, stream);
  }
}

}  // namespace

ManifestFile write_rank_file(const std::string& path, const RankContent& content,
                             const std::atomic<bool>& cancelled, const Stream& stream) {
  ManifestFile written;
  Hdf5File file = Hdf5File::create(path);
  const std::vector<MatrixKind> kinds = matrix_kinds(content.optimizer);
  for (const SavedShard& shard : content.shards) {
    const std::string group = fmt::format("/shards/{}", written.shards.size());
    file.create_group(group);
    file.write_attribute(group, "table", shard.table);
    file.write_attribute(group, "row_begin", shard.part.row_begin);
    file.write_attribute(group, "row_end", shard.part.row_end);
    file.write_attribute(group, "column_begin", shard.part.column_begin);
    file.write_attribute(group, "column_end", shard.part.column_end);
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      with_any_elements(shard.matrices[k], [&]<typename T>(const DeviceMatrix<const T>& matrix) {
        write_matrix<T>(file, group + "/" + kinds[k].name, matrix, cancelled, stream);
      });
    }
    written.shards.push_back({shard.table, shard.part});
  }
  for (std::size_t i = 0; i < content.tensors.size(); ++i) {
    const std::string name = tensor_path(i);
    write_matrix<float>(file, name, content.tensors[i].values.as<float>(), cancelled, stream);
    file.write_attribute(name, "name", content.tensors[i].name);
  }
  file.close();
  written.bytes = file.file_bytes();
  written.digest = file.digest();
  return written;
}

void read_checkpoint(const std::string& checkpoint, const Manifest& manifest,
                     const CheckpointState& state, LoadedParts what,
                     const Communicator& communicator, const Stream& stream) {
  // Weights are all that there is without an optimizer's state.
  const std::vector<MatrixKind> kinds =
      matrix_kinds(what == LoadedParts::kAll ? manifest.optimizer : SparseOptimizer::kSgd);
  const bool row_state = std::ranges::any_of(kinds, &MatrixKind::one_a_row);
  LocalParts parts = local_parts(state.embedding);
  const auto is_needed = [&](const ManifestShard& s) { return needs_any(parts, s, row_state); };
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
    const std::vector<ManifestShard>& shards = manifest.files[rank].shards;
    const bool has_tensors = rank == 0 && !manifest.tensors.empty();
    const bool is_mine = static_cast<int>(rank % static_cast<std::size_t>(communicator.size())) ==
                         communicator.rank();
    if (!is_mine && !has_tensors && std::ranges::none_of(shards, is_needed)) continue;
    const Hdf5File file = open_rank_file(checkpoint, manifest, rank);
    for (std::size_t i = 0; i < shards.size(); ++i) {
      if (!is_needed(shards[i])) continue;
      read_shard(file, i, shards[i].part, kinds, parts.at(shards[i].table), stream);
    }
    if (has_tensors) read_tensors(file, manifest, state, stream);
  }
  if (!row_state) return;
  for (auto& [table, shards] : parts) {
    for (const LocalPart& local : shards) {
      copy_from_host<float>(local.row_state.values, local.shard.state.flat(), stream);
      stream.synchronize();
    }
  }
}

void verify_checkpoint(const std::string& checkpoint, const Manifest& manifest) {
  for (std::size_t rank = 0; rank < manifest.files.size(); ++rank) {
    open_rank_file(checkpoint, manifest, rank).verify();
  }
}

}  // namespace serrate
