#include "serrate/kernels/embedding_update.h"

#include "serrate/error.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

bool has_shape(DeviceMatrix<const float> view, std::int64_t rows, std::int64_t cols) {
  return view.rows == rows && view.cols == cols;
}

void check_state(const EmbeddingUpdate& args) {
  const std::int64_t rows = args.table.rows, cols = args.table.cols;
  switch (args.optimizer.type) {
    case SparseOptimizer::kSgd:
      break;
    case SparseOptimizer::kAdagrad:
      check(has_shape(args.state, rows, cols), "adagrad's state must have the table's shape");
      break;
    case SparseOptimizer::kRowWiseAdagrad:
      check(has_shape(args.state, rows, 1), "row_wise_adagrad's state must be [num_rows, 1]");
      break;
    case SparseOptimizer::kAdam:
      check(has_shape(args.state, rows, cols) && has_shape(args.second_moment, rows, cols),
            "adam's moments must have the table's shape");
      check(args.step >= 1, "adam's step counts from 1");
      break;
  }
}

void check_rounding(const EmbeddingUpdate& args) {
  if (args.table.type == DataType::kFloat32) return;
  check(args.step >= 1, "the step of an update that rounds counts from 1");
  check(args.rounding.row_begin >= 0 && args.rounding.column_begin >= 0,
        "a shard's first row and column, which an update rounds by, must be at least 0");
}

void check_gradients(const EmbeddingUpdate& args) {
  for (const GradientSegment& s : args.segments) {
    check(has_shape(s.d_output, std::ssize(s.offsets) - 1, args.table.cols),
          "d_output must be [num_bags, dim]");
  }
}

}  // namespace

std::int64_t RowGroups::bytes() const {
  return num_rows.bytes() + rows.bytes() + row_offsets.bytes() + occurrences.bytes() +
         weights.bytes() + scratch.bytes() + scratch_weights.bytes();
}

void group_gradients(std::span<const GradientSegment> segments, std::int64_t num_rows,
                     RowGroups& groups, const Stream& stream) {
  groups.num_occurrences = 0;
  bool weighted = false;
  for (const GradientSegment& s : segments) {
    check(!s.offsets.empty(), "offsets must be [num_bags + 1]");
    check(s.weights.empty() || s.weights.size() == s.indices.size(),
          "weights must be empty or as many as indices");
    groups.num_occurrences += std::ssize(s.indices);
    weighted |= !s.weights.empty();
  }
  groups.occurrences.resize_discard(groups.num_occurrences, stream);
  groups.weights.resize_discard(weighted ? groups.num_occurrences : 0, stream);
  dispatch_device(stream.device(), [&](auto device) {
    group_gradients_on<device()>(segments, num_rows, groups, stream);
  });
}

void gradient_row_squares(const EmbeddingUpdate& args, const RowGroups& groups,
                          std::span<const ColumnRange> columns, DeviceSpan<float> squares,
                          const Stream& stream) {
  check_gradients(args);
  check(!columns.empty() && std::ssize(columns) * groups.num_occurrences == std::ssize(squares),
        "squares must be [columns, num_occurrences]");
  dispatch_device(stream.device(), [&](auto device) {
    gradient_row_squares_on<device()>(args, groups, columns, squares, stream);
  });
}

void embedding_update(const EmbeddingUpdate& args, const RowGroups& groups,
                      DeviceSpan<const float> row_squares, std::int64_t full_dim,
                      const Stream& stream) {
  check_gradients(args);
  check_state(args);
  check_rounding(args);
  check(row_squares.empty() || (args.optimizer.type == SparseOptimizer::kRowWiseAdagrad &&
                                full_dim >= args.table.cols),
        "row_squares are for row_wise_adagrad and need the dim of the whole row");
  dispatch_device(stream.device(), [&](auto device) {
    embedding_update_on<device()>(args, groups, row_squares, full_dim, stream);
  });
}

}  // namespace serrate
