#include "src/checkpoint/rank_content.h"

#include <fmt/format.h>

#include "serrate/error.h"
#include "src/checkpoint/finite_pieces.h"

namespace serrate {
namespace {

/// What a matrix is called in messages.
struct MatrixName {
  std::string name;
  std::int64_t first_row = 0;
};

MatrixName name_of(const SavedShard& shard, const MatrixKind& kind) {
  return {fmt::format("{} of table \"{}\"", kind.name, shard.table), shard.part.row_begin};
}

/// Copies a matrix to the host, `to` or a piece of memory at a time, and checks what it copies.
template <typename T>
void copy_finite(DeviceMatrix<const T> from, T* to, const MatrixName& name, std::int64_t step,
                 const Stream& stream) {
  std::vector<T> piece;
  for_each_piece(from.rows, from.cols, [&](std::int64_t begin, std::int64_t end) {
    const auto count = static_cast<std::size_t>((end - begin) * from.cols);
    if (!to) piece.resize(count);
    T* const values = to ? to + begin * from.cols : piece.data();
    const DeviceMatrix<const T> rows = from.middle_rows(begin, end);
    if (rows.stride == rows.cols) {
      copy_to_host<T>(rows.flat(), std::span<T>(values, count), stream);
    } else {
      copy_to_host<T>(rows, MatrixView<T>(values, end - begin, from.cols), stream);
    }
    if (all_finite<T>({values, count})) return;
    const auto [row, value] = first_not_finite<T>({values, count}, from.cols);
    throw Error(
        fmt::format("after step {}, row {} of the {} is {} (the training diverged: nothing "
                    "is saved, earlier checkpoints stay): lower the learning rates",
                    step, name.first_row + begin + row, name.name, value));
  });
}

/// Bytes of a matrix in a copy; what is behind it is aligned to 4 bytes.
std::int64_t copied_bytes(const InputMatrix& matrix) {
  return (matrix.rows * matrix.cols * size_of(matrix.type) + 3) / 4 * 4;
}

/// Calls `use` with every matrix and its name.
template <typename Content, typename Use>
void for_each_matrix(Content& content, const Use& use) {
  const std::vector<MatrixKind> kinds = matrix_kinds(content.optimizer);
  for (auto& shard : content.shards) {
    for (std::size_t k = 0; k < kinds.size(); ++k) {
      use(shard.matrices[k], name_of(shard, kinds[k]));
    }
  }
  for (auto& tensor : content.tensors) {
    use(tensor.values, MatrixName{fmt::format("tensor \"{}\"", tensor.name)});
  }
}

}  // namespace

std::int64_t RankContent::num_bytes() const {
  std::int64_t bytes = 0;
  for_each_matrix(
      *this, [&](const InputMatrix& matrix, const MatrixName&) { bytes += copied_bytes(matrix); });
  return bytes;
}

RankContent content_of(const CheckpointState& state, int rank) {
  RankContent content{
      .optimizer = state.embedding.options().optimizer.type, .shards = {}, .tensors = {}};
  const std::size_t num_kinds = matrix_kinds(content.optimizer).size();
  for (const LocalShard& local : state.embedding.local_shards()) {
    const ShardingType type = sharding_of(state.embedding.plan(), local.table).type;
    if (type == ShardingType::kDataParallel && rank > 0) continue;
    const Shard& s = local.shard;
    SavedShard shard{.table = local.table,
                     .part = {s.row_begin, s.row_end, s.column_begin, s.column_end},
                     .matrices = {local.weights, local.state, local.second_moment}};
    shard.matrices.resize(num_kinds);
    content.shards.push_back(std::move(shard));
  }
  if (rank > 0) return content;
  for (const CheckpointTensor& tensor : state.tensors) {
    content.tensors.push_back({tensor.name, tensor.values});
  }
  return content;
}

void check_finite(const RankContent& content, std::int64_t step, const Stream& stream) {
  for_each_matrix(content, [&](const InputMatrix& any, const MatrixName& name) {
    with_any_elements(any, [&]<typename T>(const DeviceMatrix<const T>& matrix) {
      copy_finite<T>(matrix, nullptr, name, step, stream);
    });
  });
}

RankContent copy_content(const RankContent& content, std::int64_t step, Buffer<std::byte>& memory,
                         const Stream& stream) {
  const Stream host(Device::cpu());
  if (const std::int64_t bytes = content.num_bytes(); memory.size() != bytes) {
    memory = Buffer<std::byte>();
    memory = Buffer<std::byte>(bytes, host);
  }
  RankContent copied = content;
  std::byte* to = host_view(memory.span(), host).data();
  for_each_matrix(copied, [&](InputMatrix& any, const MatrixName& name) {
    with_any_elements(any, [&]<typename T>(const DeviceMatrix<const T>& matrix) {
      copy_finite<T>(matrix, reinterpret_cast<T*>(to), name, step, stream);
    });
    any = InputMatrix(to, any.type, any.rows, any.cols);
    to += copied_bytes(any);
  });
  return copied;
}

}  // namespace serrate
