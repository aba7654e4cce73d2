// An update changes a row once, by the sum of its occurrences' gradients (row_gradients.cuh): no
// atomics.
#include <algorithm>

#include "kernels/embedding/adam_corrections.h"
#include "kernels/embedding/cuda/row_gradients.cuh"
#include "kernels/embedding/cuda/table_rows.cuh"
#include "serrate/kernels/embedding_update.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kUpdateThreads = 256;

template <int kWidth>
__device__ float sum_of_squares(const RowVector<kWidth>& vector) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) sum = fmaf(vector.value[k], vector.value[k], sum);
  return sum;
}

// The optimizers: rate() is the learning rate of a row, step() changes one weight and its state.
// See SparseOptimizer for the definitions.
struct Sgd {
  static constexpr int kStates = 0;
  float learning_rate;

  __device__ float rate(const OccurrenceRun&, float) const { return learning_rate; }
  __device__ void step(float rate, float g, float& w, float&, float&) const {
    w = fmaf(-rate, g, w);
  }
};

struct Adagrad {
  static constexpr int kStates = 1;
  float learning_rate, eps;

  __device__ float rate(const OccurrenceRun&, float) const { return learning_rate; }
  __device__ void step(float rate, float g, float& w, float& sum, float&) const {
    sum = fmaf(g, g, sum);
    w -= rate * g / (sqrtf(sum) + eps);
  }
};

struct RowWiseAdagrad {
  static constexpr int kStates = 0;
  float learning_rate, eps;
  Rows<float> sums;          // [num_rows, 1]
  const float* row_squares;  // or null
  float full_dim;

  // Called by all lanes; `squares` is the lane's part.
  __device__ float rate(const OccurrenceRun& run, float squares) const {
    squares = row_squares ? row_squares[run.begin] : sum_over_lanes(squares);
    const float sum = *sums.row(run.row) + squares / full_dim;
    __syncwarp(lanes_of_row());  // all have read the sum
    if (threadIdx.x == 0) *sums.row(run.row) = sum;
    return learning_rate / (sqrtf(sum) + eps);
  }
  __device__ void step(float rate, float g, float& w, float&, float&) const {
    w = fmaf(-rate, g, w);
  }
};

struct Adam {
  static constexpr int kStates = 2;
  AdamCorrections corrections;
  float eps, beta1, beta2;

  __device__ float rate(const OccurrenceRun&, float) const { return corrections.learning_rate; }
  __device__ void step(float rate, float g, float& w, float& first, float& second) const {
    first = fmaf(beta1, first, (1 - beta1) * g);
    second = fmaf(beta2, second, (1 - beta2) * (g * g));
    w -= rate * first / fmaf(sqrtf(second), corrections.second, eps);
  }
};

// One row of threads per occurrence, lanes over the columns. A lane keeps the gradient of its
// columns in shared memory between the sum and the step, as the step of a row may need the squares
// of all its columns.
template <int kWidth, class Optimizer, class Value>
__global__ void update_rows(OccurrenceGroups groups, Optimizer optimizer, Rows<Value> table,
                            Rows<float> state, Rows<float> second_moment, RoundingDraw draw) {
  // [blockDim.y, cols], every row aligned to 16 bytes; then keys
  const std::int64_t shared_stride = (groups.cols + 3) / 4 * 4;
  float* const shared = dynamic_shared<float>();
  float* const gradient = shared + threadIdx.y * shared_stride;
  auto* const keys = reinterpret_cast<std::uint64_t*>(shared + blockDim.y * shared_stride);
  for_own_row(groups, keys, [&](const OccurrenceRun& run) {
    if (!sum_chunk<kWidth>(groups, run, 0, groups.cols)) return;
    float squares = 0;
    for_own_columns<kWidth>(0, groups.cols, [&](std::int64_t c) {
      const auto sum = sum_gradients<kWidth>(groups, run, c);
      squares += sum_of_squares(sum);
      store(sum, gradient + c);
    });
    const std::int64_t row = run.row;
    const float rate = optimizer.rate(run, squares);
    for_own_columns<kWidth>(0, groups.cols, [&](std::int64_t c) {
      const auto g = load<kWidth>(gradient + c);
      auto w = load_values<kWidth>(table.row(row) + c);
      RowVector<kWidth> s{}, v{};
      if constexpr (Optimizer::kStates >= 1) s = load<kWidth>(state.row(row) + c);
      if constexpr (Optimizer::kStates >= 2) v = load<kWidth>(second_moment.row(row) + c);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        optimizer.step(rate, g.value[k], w.value[k], s.value[k], v.value[k]);
      }
      store_values(w, draw, row, c, table.row(row));
      if constexpr (Optimizer::kStates >= 1) store(s, state.row(row) + c);
      if constexpr (Optimizer::kStates >= 2) store(v, second_moment.row(row) + c);
    });
  });
}

// One row of threads per occurrence, as update_rows.
template <int kWidth>
__global__ void square_rows(OccurrenceGroups groups, ColumnRange columns, float* squares) {
  for_own_row(groups, dynamic_shared<std::uint64_t>(), [&](const OccurrenceRun& run) {
    if (!sum_chunk<kWidth>(groups, run, columns.begin, columns.end)) return;
    float sum = 0;
    for_own_columns<kWidth>(columns.begin, columns.end, [&](std::int64_t c) {
      sum += sum_of_squares(sum_gradients<kWidth>(groups, run, c));
    });
    sum = sum_over_lanes(sum);
    if (threadIdx.x == 0) squares[run.begin] = sum;
  });
}

template <class Value, class Optimizer>
void launch_update_of(const EmbeddingUpdate& args, const RowGroups& groups, Optimizer optimizer,
                      const Stream& stream) {
  constexpr std::int64_t kSharedBytes = 48 << 10;
  const DeviceGroups device(args, groups, stream);
  bool aligned = device.aligned && aligned_by_four(args.table);
  if constexpr (Optimizer::kStates >= 1) aligned = aligned && aligned_by_four(args.state);
  if constexpr (Optimizer::kStates >= 2) aligned = aligned && aligned_by_four(args.second_moment);
  // Four columns are rounded by the four words of a draw.
  if (args.table.type != DataType::kFloat32) aligned &= args.rounding.column_begin % 4 == 0;
  const std::int64_t row_bytes =
      (args.table.cols + 3) / 4 * 4 * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t most_rows =
      (kSharedBytes - bytes_of_occurrence_keys(0)) /
      (row_bytes + bytes_of_occurrence_keys(1) - bytes_of_occurrence_keys(0));
  check(most_rows > 0,
        "rows of more than 12276 columns are too wide for the update on a GPU (its blocks keep a "
        "row in 48 KiB of shared memory): make the table's dim smaller, or cut it by columns");
  dim3 block = rows_of_threads(args.table.cols, aligned ? 4 : 1, kUpdateThreads);
  block.y = std::min(block.y, static_cast<unsigned>(most_rows));
  const auto kernel = aligned ? update_rows<4, Optimizer, Value> : update_rows<1, Optimizer, Value>;
  const Rows<Value> table{static_cast<Value*>(args.table.device_data()), args.table.stride};
  launch(kernel, blocks_for_occurrences(groups, block), block,
         static_cast<std::size_t>(block.y * row_bytes + bytes_of_occurrence_keys(block.y)), stream,
         device.groups, optimizer, table, rows_of(args.state), rows_of(args.second_moment),
         rounding_draw_of(args));
}

template <class Optimizer>
void launch_update(const EmbeddingUpdate& args, const RowGroups& groups, Optimizer optimizer,
                   const Stream& stream) {
  switch (args.table.type) {
    case DataType::kFloat32:
      return launch_update_of<float>(args, groups, optimizer, stream);
    case DataType::kFloat16:
      return launch_update_of<Float16>(args, groups, optimizer, stream);
    case DataType::kBFloat16:
      return launch_update_of<BFloat16>(args, groups, optimizer, stream);
  }
}

}  // namespace

template <>
void gradient_row_squares_on<DeviceType::kCuda>(const EmbeddingUpdate& args,
                                                const RowGroups& groups,
                                                std::span<const ColumnRange> columns,
                                                DeviceSpan<float> squares, const Stream& stream) {
  if (groups.num_occurrences == 0) return;
  const DeviceGroups device(args, groups, stream);
  float* next = squares.device_data();
  for (const ColumnRange& range : columns) {
    const bool aligned = device.aligned && range.begin % 4 == 0 && range.end % 4 == 0;
    const auto kernel = aligned ? square_rows<4> : square_rows<1>;
    const dim3 block = rows_of_threads(range.end - range.begin, aligned ? 4 : 1, kUpdateThreads);
    launch(kernel, blocks_for_occurrences(groups, block), block,
           static_cast<std::size_t>(bytes_of_occurrence_keys(block.y)), stream, device.groups,
           range, next);
    next += squares.size() / columns.size();
  }
}

template <>
void embedding_update_on<DeviceType::kCuda>(const EmbeddingUpdate& args, const RowGroups& groups,
                                            DeviceSpan<const float> row_squares,
                                            std::int64_t full_dim, const Stream& stream) {
  if (groups.num_occurrences == 0) return;
  const SparseOptimizerOptions& o = args.optimizer;
  switch (o.type) {
    case SparseOptimizer::kSgd:
      return launch_update(args, groups, Sgd{o.learning_rate}, stream);
    case SparseOptimizer::kAdagrad:
      return launch_update(args, groups, Adagrad{o.learning_rate, o.eps}, stream);
    case SparseOptimizer::kRowWiseAdagrad: {
      const bool given = !row_squares.empty();
      return launch_update(args, groups,
                           RowWiseAdagrad{o.learning_rate, o.eps, rows_of(args.state),
                                          given ? row_squares.device_data() : nullptr,
                                          static_cast<float>(given ? full_dim : args.table.cols)},
                           stream);
    }
    case SparseOptimizer::kAdam:
      return launch_update(args, groups,
                           Adam{adam_corrections(o, args.step), o.eps, o.beta1, o.beta2}, stream);
  }
}

}  // namespace serrate
