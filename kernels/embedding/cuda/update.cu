// An update reads the gradients of a row's occurrences and changes the row once, by one row of a
// block's threads (a warp, or the part of it that a narrow row needs): no atomics, and the sum is
// in occurrence order. Of a row with very many occurrences, as Zipf's law gives, others add up
// chunks before, whose sums then are added in order.
#include <algorithm>
#include <vector>

#include "kernels/cuda/primitives.cuh"
#include "kernels/cuda/search.cuh"
#include "kernels/embedding/adam_corrections.h"
#include "kernels/embedding/cuda/table_rows.cuh"
#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"
#include "src/core/launch.cuh"

namespace serrate {
namespace {

constexpr int kUpdateThreads = 256;
constexpr std::int64_t kMaxBlocks = 8192;  // several for each place on the device; they stride
constexpr std::int64_t kChunk = 256;       // occurrences of a row

struct Gradient {
  const float* data;
  std::int64_t stride;
};

template <class Value>
struct Table {
  Value* data;
  std::int64_t stride;
  __device__ Value* row(std::int64_t r) const { return data + r * stride; }
};
using Matrix = Table<float>;

// RowGroups and the segments' gradients as a kernel sees them.
struct Groups {
  const std::int64_t* num_rows;
  const std::int64_t* rows;
  const std::int64_t* row_offsets;
  const std::uint64_t* occurrences;
  const float* weights;  // or null
  const Gradient* gradients;
  std::int64_t cols;
  Matrix chunk_sums;  // that of a chunk whose first occurrence is o is row o / kChunk
};

Matrix matrix(DeviceMatrix<float> view) {
  return {view.device_data(), view.stride};
}

// The lanes of this row of the block's threads, which are a warp or a part of one.
__device__ unsigned lanes_of_row() {
  const unsigned first = threadIdx.y * blockDim.x % kWarpSize;
  return 0xffffffff >> (kWarpSize - blockDim.x) << first;
}

__device__ float sum_over_lanes(float value) {
  for (unsigned lanes = blockDim.x / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(lanes_of_row(), value, static_cast<int>(lanes));
  }
  return value;
}

// Calls f(i) for the rows of the groups that are of this row of the block's threads.
template <typename F>
__device__ void for_each_row(const Groups& groups, F f) {
  const std::int64_t num_rows = *groups.num_rows;
  const std::int64_t step = std::int64_t{gridDim.x} * blockDim.y;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y; i < num_rows;
       i += step) {
    f(i);
  }
}

// Calls f(c) for this lane's of the columns [begin, end).
template <int kWidth, typename F>
__device__ void for_each_column(std::int64_t begin, std::int64_t end, F f) {
  for (std::int64_t c = begin + threadIdx.x * kWidth; c < end; c += blockDim.x * kWidth) f(c);
}

// sum += the gradients of occurrences [begin, end) at column c.
template <int kWidth>
__device__ void add_gradients(const Groups& groups, std::int64_t begin, std::int64_t end,
                              std::int64_t c, RowVector<kWidth>& sum) {
#pragma unroll 4
  for (std::int64_t o = begin; o < end; ++o) {
    const std::uint64_t occurrence = groups.occurrences[o];
    const Gradient gradient = groups.gradients[segment_of(occurrence)];
    const float weight = groups.weights ? groups.weights[o] : 1.0f;
    multiply_add(weight, load<kWidth>(gradient.data + bag_of(occurrence) * gradient.stride + c),
                 sum);
  }
}

// Where the chunks of a row with occurrences [begin, end) end: a row has none or at least two, of
// kChunk each, and what is left over is fewer than kChunk.
__device__ std::int64_t end_of_chunks(std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = (end - begin) / kChunk;
  return chunks > 1 ? begin + chunks * kChunk : begin;
}

// The gradient of row i of the groups at column c.
template <int kWidth>
__device__ RowVector<kWidth> sum_gradients(const Groups& groups, std::int64_t i, std::int64_t c) {
  RowVector<kWidth> sum{};
  const std::int64_t begin = groups.row_offsets[i], end = groups.row_offsets[i + 1];
  const std::int64_t rest = end_of_chunks(begin, end);
#pragma unroll 4
  for (std::int64_t o = begin; o < rest; o += kChunk) {
    multiply_add(1.0f, load<kWidth>(groups.chunk_sums.row(o / kChunk) + c), sum);
  }
  add_gradients(groups, rest, end, c, sum);
  return sum;
}

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

  __device__ float rate(std::int64_t, std::int64_t, float) const { return learning_rate; }
  __device__ void step(float rate, float g, float& w, float&, float&) const {
    w = fmaf(-rate, g, w);
  }
};

struct Adagrad {
  static constexpr int kStates = 1;
  float learning_rate, eps;

  __device__ float rate(std::int64_t, std::int64_t, float) const { return learning_rate; }
  __device__ void step(float rate, float g, float& w, float& sum, float&) const {
    sum = fmaf(g, g, sum);
    w -= rate * g / (sqrtf(sum) + eps);
  }
};

struct RowWiseAdagrad {
  static constexpr int kStates = 0;
  float learning_rate, eps;
  Matrix sums;               // [num_rows, 1]
  const float* row_squares;  // or null
  float full_dim;

  // Called by all lanes; `squares` is the lane's part.
  __device__ float rate(std::int64_t i, std::int64_t row, float squares) const {
    squares = row_squares ? row_squares[i] : sum_over_lanes(squares);
    const float sum = *sums.row(row) + squares / full_dim;
    __syncwarp(lanes_of_row());  // all have read the sum
    if (threadIdx.x == 0) *sums.row(row) = sum;
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

  __device__ float rate(std::int64_t, std::int64_t, float) const {
    return corrections.learning_rate;
  }
  __device__ void step(float rate, float g, float& w, float& first, float& second) const {
    first = fmaf(beta1, first, (1 - beta1) * g);
    second = fmaf(beta2, second, (1 - beta2) * (g * g));
    w -= rate * first / fmaf(sqrtf(second), corrections.second, eps);
  }
};

// One row of threads per kChunk occurrences: for the chunk that begins among them, if one does. Two
// cannot.
template <int kWidth>
__global__ void sum_chunks(Groups groups, std::int64_t num_occurrences) {
  const std::int64_t chunk = std::int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const std::int64_t first = chunk * kChunk;
  const std::int64_t last = std::min(first + kChunk, num_occurrences) - 1;
  if (first > last) return;
  const std::int64_t* const offsets = groups.row_offsets;
  const auto row = last_at_most(*groups.num_rows, last, [=](std::int64_t i) { return offsets[i]; });
  const std::int64_t begin = offsets[row] + (last - offsets[row]) / kChunk * kChunk;
  if (begin < first || begin >= end_of_chunks(offsets[row], offsets[row + 1])) return;
  for_each_column<kWidth>(0, groups.cols, [&](std::int64_t c) {
    RowVector<kWidth> sum{};
    add_gradients(groups, begin, begin + kChunk, c, sum);
    store(sum, groups.chunk_sums.row(chunk) + c);
  });
}

// One row of threads per row of the groups, whose number only the device knows: they stride over
// the rows, lanes over the columns. A lane keeps the gradient of its columns in shared memory
// between the sum and the step, as the step of a row may need the squares of all its columns.
template <int kWidth, class Optimizer, class Value>
__global__ void update_rows(Groups groups, Optimizer optimizer, Table<Value> table, Matrix state,
                            Matrix second_moment, RoundingDraw draw) {
  // [blockDim.y, cols], every row aligned to 16 bytes
  const std::int64_t shared_stride = (groups.cols + 3) / 4 * 4;
  float* gradient = dynamic_shared<float>() + threadIdx.y * shared_stride;
  for_each_row(groups, [&](std::int64_t i) {
    float squares = 0;
    for_each_column<kWidth>(0, groups.cols, [&](std::int64_t c) {
      const auto sum = sum_gradients<kWidth>(groups, i, c);
      squares += sum_of_squares(sum);
      store(sum, gradient + c);
    });
    const std::int64_t row = groups.rows[i];
    const float rate = optimizer.rate(i, row, squares);
    for_each_column<kWidth>(0, groups.cols, [&](std::int64_t c) {
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

// One row of threads per row of the groups, as update_rows.
template <int kWidth>
__global__ void square_rows(Groups groups, ColumnRange columns, float* squares) {
  for_each_row(groups, [&](std::int64_t i) {
    float sum = 0;
    for_each_column<kWidth>(columns.begin, columns.end, [&](std::int64_t c) {
      sum += sum_of_squares(sum_gradients<kWidth>(groups, i, c));
    });
    sum = sum_over_lanes(sum);
    if (threadIdx.x == 0) squares[i] = sum;
  });
}

// The segments' gradients on the device, and what the kernels need of the groups.
struct DeviceGroups {
  Buffer<Gradient> gradients;
  Buffer<float> chunk_sums;
  Groups groups;
  bool aligned = true;

  DeviceGroups(const EmbeddingUpdate& args, const RowGroups& from, const Stream& stream) {
    std::vector<Gradient> host;
    for (const GradientSegment& s : args.segments) {
      host.push_back({s.d_output.device_data(), s.d_output.stride});
      aligned = aligned && aligned_by_four(s.d_output);
    }
    gradients = Buffer<Gradient>(host, stream);
    groups = {from.num_rows.device_data(),
              from.rows.device_data(),
              from.row_offsets.device_data(),
              from.occurrences.device_data(),
              from.weights.size() > 0 ? from.weights.device_data() : nullptr,
              gradients.device_data(),
              args.table.cols,
              {}};
    if (from.num_occurrences < 2 * kChunk) return;
    const std::int64_t chunks = (from.num_occurrences + kChunk - 1) / kChunk;
    const std::int64_t stride = (args.table.cols + 3) / 4 * 4;
    chunk_sums = Buffer<float>(chunks * stride, stream);
    groups.chunk_sums = {chunk_sums.device_data(), stride};
    const dim3 block = rows_of_threads(groups.cols, aligned ? 4 : 1, kUpdateThreads);
    launch(aligned ? sum_chunks<4> : sum_chunks<1>,
           static_cast<unsigned>((chunks + block.y - 1) / block.y), block, 0, stream, groups,
           from.num_occurrences);
  }
};

unsigned blocks_for(const RowGroups& groups, dim3 block) {
  const std::int64_t blocks = (groups.num_occurrences + block.y - 1) / block.y;
  return static_cast<unsigned>(std::min(blocks, kMaxBlocks));
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
  check(row_bytes <= kSharedBytes, "rows are too wide for the update on a GPU (12288 columns)");
  dim3 block = rows_of_threads(args.table.cols, aligned ? 4 : 1, kUpdateThreads);
  block.y =
      std::min(block.y, static_cast<unsigned>(kSharedBytes / std::max<std::int64_t>(row_bytes, 1)));
  const auto kernel = aligned ? update_rows<4, Optimizer, Value> : update_rows<1, Optimizer, Value>;
  const Table<Value> table{static_cast<Value*>(args.table.device_data()), args.table.stride};
  launch(kernel, blocks_for(groups, block), block, block.y * static_cast<std::size_t>(row_bytes),
         stream, device.groups, optimizer, table, matrix(args.state), matrix(args.second_moment),
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
    launch(kernel, blocks_for(groups, block), block, 0, stream, device.groups, range, next);
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
                           RowWiseAdagrad{o.learning_rate, o.eps, matrix(args.state),
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
