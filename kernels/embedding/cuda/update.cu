// An update reads the gradients of a row's occurrences and changes the row once, by one row of a
// block's threads (a warp, or the part of it that a narrow row needs): no atomics, and the sum is
// in occurrence order. There is one for each occurrence, as only sorting has told where rows begin:
// that of a row's first occurrence does the row. Of a row with very many occurrences, as Zipf's law
// gives, those of every 256th occurrence add up a chunk each; the last one to be done adds these in
// order and changes the row.
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
constexpr std::int64_t kChunk = 256;  // occurrences of a row

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
  const std::uint64_t* occurrences;
  std::int64_t num_occurrences;
  OccurrenceFormat format;
  const float* weights;  // or null
  const Gradient* gradients;
  std::int64_t cols;
  Matrix chunk_sums;      // that of a chunk whose first occurrence is o is row o / kChunk
  unsigned* done_chunks;  // of a row whose first occurrence is o: o / kChunk; 0 between kernels

  __device__ std::int64_t row(std::int64_t o) const { return format.row(occurrences[o]); }
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

// The occurrences [begin, end) of a row, and which of them this row of threads has come for: the
// first, or the first of another chunk.
struct RowRun {
  std::int64_t row, begin, end, own;
};

// Where a row begins that occurrence `inside` is of.
__device__ std::int64_t begin_of_row(const Groups& groups, std::int64_t row, std::int64_t inside) {
  std::int64_t step = 1;
  for (; inside >= step && groups.row(inside - step) == row; step *= 2) inside -= step;
  const std::int64_t low = std::max<std::int64_t>(inside - step, 0);
  if (groups.row(low) == row) return low;
  return low + 1 +
         last_at_most(inside - low, row - 1, [&](std::int64_t i) { return groups.row(low + i); });
}

// Where a row ends that all occurrences before `end`, and at least one, are of.
__device__ std::int64_t end_of_row(const Groups& groups, std::int64_t row, std::int64_t end) {
  const std::int64_t size = groups.num_occurrences;
  std::int64_t step = 1;
  for (; end + step <= size && groups.row(end + step - 1) == row; step *= 2) end += step;
  return end + last_at_most(std::min(step, size - end + 1), row,
                            [&](std::int64_t i) { return groups.row(end - 1 + i); });
}

// Where the chunks of a row with occurrences [begin, end) end: a row has none or at least two, of
// kChunk each, and what is left over is fewer than kChunk.
__device__ std::int64_t end_of_chunks(std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = (end - begin) / kChunk;
  return chunks > 1 ? begin + chunks * kChunk : begin;
}

// What a block keeps of the occurrences: those of its rows of threads, one before and one behind,
// and that kChunk before its last; and where the row before begins.
constexpr unsigned kNeighbours = 4;

// Calls f(run) in each row of a block's threads whose occurrence is the first of a row or of a
// chunk. `keys` is shared, for blockDim.y + kNeighbours of them. All threads call it, once.
template <typename F>
__device__ void for_own_row(const Groups& groups, std::uint64_t* keys, F f) {
  const std::int64_t size = groups.num_occurrences;
  const std::int64_t before = std::int64_t{blockIdx.x} * blockDim.y - 1;
  const std::int64_t chunk_before = before + blockDim.y - kChunk;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x, behind = blockDim.y + 1;
  for (unsigned k = thread; k <= behind + 1; k += blockDim.x * blockDim.y) {
    const std::int64_t o = k <= behind ? before + k : chunk_before;
    if (o >= 0 && o < size) keys[k] = groups.occurrences[o];
  }
  __syncthreads();
  const auto row_of = [&](unsigned k) { return groups.format.row(keys[k]); };
  // A row goes on from far enough before that a chunk of it may begin here.
  const bool goes_on =
      chunk_before >= 0 && row_of(0) == row_of(1) && row_of(behind + 1) == row_of(1);
  if (goes_on) {
    if (thread == 0) {
      const std::int64_t found = begin_of_row(groups, row_of(1), chunk_before);
      keys[behind + 2] = static_cast<std::uint64_t>(found);
    }
    __syncthreads();
  }
  unsigned k = threadIdx.y + 1;
  const std::int64_t own = before + k;
  if (own >= size) return;
  const std::int64_t row = row_of(k);
  std::int64_t begin = own;
  if (own > 0 && row_of(k - 1) == row) {
    if (!goes_on || row != row_of(1)) return;
    begin = static_cast<std::int64_t>(keys[behind + 2]);
    if ((own - begin) % kChunk != 0) return;
  }
  ++k;
  while (k <= behind && before + k < size && row_of(k) == row) ++k;
  const std::int64_t end = k <= behind ? before + k : end_of_row(groups, row, before + k);
  if (begin == own || own < end_of_chunks(begin, end)) f(RowRun{row, begin, end, own});
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
    const std::uint64_t key = groups.occurrences[o];
    const Gradient gradient = groups.gradients[groups.format.segment(key)];
    const float weight = groups.weights ? groups.weights[o] : 1.0f;
    multiply_add(weight, load<kWidth>(gradient.data + groups.format.bag(key) * gradient.stride + c),
                 sum);
  }
}

// Whether this row of threads is to do the row: where it has chunks, adds up its own, in columns
// [begin, end), and is if that was the last. All lanes call it.
template <int kWidth>
__device__ bool sum_chunk(const Groups& groups, const RowRun& run, std::int64_t begin,
                          std::int64_t end) {
  const std::int64_t chunks = (end_of_chunks(run.begin, run.end) - run.begin) / kChunk;
  if (chunks == 0) return true;
  for_each_column<kWidth>(begin, end, [&](std::int64_t c) {
    RowVector<kWidth> sum{};
    add_gradients(groups, run.own, run.own + kChunk, c, sum);
    store(sum, groups.chunk_sums.row(run.own / kChunk) + c);
  });
  __syncwarp(lanes_of_row());
  unsigned is_last = 0;
  if (threadIdx.x == 0) {
    unsigned* const done = groups.done_chunks + run.begin / kChunk;
    __threadfence();  // the sum comes before the count,
    is_last = atomicAdd(done, 1u) == chunks - 1;
    if (is_last) atomicExch(done, 0u);
    __threadfence();  // which comes before what the last one reads
  }
  __syncwarp(lanes_of_row());
  return __shfl_sync(lanes_of_row(), is_last, 0, static_cast<int>(blockDim.x));
}

// The gradient of a row at column c.
template <int kWidth>
__device__ RowVector<kWidth> sum_gradients(const Groups& groups, const RowRun& run,
                                           std::int64_t c) {
  RowVector<kWidth> sum{};
  const std::int64_t rest = end_of_chunks(run.begin, run.end);
#pragma unroll 4
  for (std::int64_t o = run.begin; o < rest; o += kChunk) {
    multiply_add(1.0f, load<kWidth>(groups.chunk_sums.row(o / kChunk) + c), sum);
  }
  add_gradients(groups, rest, run.end, c, sum);
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

  __device__ float rate(const RowRun&, float) const { return learning_rate; }
  __device__ void step(float rate, float g, float& w, float&, float&) const {
    w = fmaf(-rate, g, w);
  }
};

struct Adagrad {
  static constexpr int kStates = 1;
  float learning_rate, eps;

  __device__ float rate(const RowRun&, float) const { return learning_rate; }
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
  __device__ float rate(const RowRun& run, float squares) const {
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

  __device__ float rate(const RowRun&, float) const { return corrections.learning_rate; }
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
__global__ void update_rows(Groups groups, Optimizer optimizer, Table<Value> table, Matrix state,
                            Matrix second_moment, RoundingDraw draw) {
  // [blockDim.y, cols], every row aligned to 16 bytes; then keys
  const std::int64_t shared_stride = (groups.cols + 3) / 4 * 4;
  float* const shared = dynamic_shared<float>();
  float* const gradient = shared + threadIdx.y * shared_stride;
  auto* const keys = reinterpret_cast<std::uint64_t*>(shared + blockDim.y * shared_stride);
  for_own_row(groups, keys, [&](const RowRun& run) {
    if (!sum_chunk<kWidth>(groups, run, 0, groups.cols)) return;
    float squares = 0;
    for_each_column<kWidth>(0, groups.cols, [&](std::int64_t c) {
      const auto sum = sum_gradients<kWidth>(groups, run, c);
      squares += sum_of_squares(sum);
      store(sum, gradient + c);
    });
    const std::int64_t row = run.row;
    const float rate = optimizer.rate(run, squares);
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

// One row of threads per occurrence, as update_rows.
template <int kWidth>
__global__ void square_rows(Groups groups, ColumnRange columns, float* squares) {
  for_own_row(groups, dynamic_shared<std::uint64_t>(), [&](const RowRun& run) {
    if (!sum_chunk<kWidth>(groups, run, columns.begin, columns.end)) return;
    float sum = 0;
    for_each_column<kWidth>(columns.begin, columns.end, [&](std::int64_t c) {
      sum += sum_of_squares(sum_gradients<kWidth>(groups, run, c));
    });
    sum = sum_over_lanes(sum);
    if (threadIdx.x == 0) squares[run.begin] = sum;
  });
}

// The segments' gradients on the device, and what the kernels need of the groups.
struct DeviceGroups {
  Buffer<Gradient> gradients;
  Buffer<float> chunk_sums;
  Buffer<unsigned> done_chunks;
  Groups groups;
  bool aligned = true;

  DeviceGroups(const EmbeddingUpdate& args, const RowGroups& from, const Stream& stream) {
    std::vector<Gradient> host;
    for (const GradientSegment& s : args.segments) {
      host.push_back({s.d_output.device_data(), s.d_output.stride});
      aligned = aligned && aligned_by_four(s.d_output);
    }
    gradients = Buffer<Gradient>(host, stream);
    groups = {from.occurrences.device_data(),
              from.num_occurrences,
              occurrence_format(args.segments),
              from.weights.size() > 0 ? from.weights.device_data() : nullptr,
              gradients.device_data(),
              args.table.cols,
              {},
              nullptr};
    if (from.num_occurrences < 2 * kChunk) return;
    const std::int64_t chunks = (from.num_occurrences + kChunk - 1) / kChunk;
    const std::int64_t stride = (args.table.cols + 3) / 4 * 4;
    chunk_sums = Buffer<float>(chunks * stride, stream);
    done_chunks = Buffer<unsigned>::zeros(chunks, stream);
    groups.chunk_sums = {chunk_sums.device_data(), stride};
    groups.done_chunks = done_chunks.device_data();
  }
};

unsigned blocks_for(const RowGroups& groups, dim3 block) {
  return static_cast<unsigned>((groups.num_occurrences + block.y - 1) / block.y);
}

// Of shared memory, for the keys of a block.
std::int64_t bytes_of_keys(unsigned rows_of_threads) {
  return (rows_of_threads + kNeighbours) * static_cast<std::int64_t>(sizeof(std::uint64_t));
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
      (kSharedBytes - bytes_of_keys(0)) / (row_bytes + bytes_of_keys(1) - bytes_of_keys(0));
  check(most_rows > 0,
        "rows of more than 12276 columns are too wide for the update on a GPU (its blocks keep a "
        "row in 48 KiB of shared memory): make the table's dim smaller, or cut it by columns");
  dim3 block = rows_of_threads(args.table.cols, aligned ? 4 : 1, kUpdateThreads);
  block.y = std::min(block.y, static_cast<unsigned>(most_rows));
  const auto kernel = aligned ? update_rows<4, Optimizer, Value> : update_rows<1, Optimizer, Value>;
  const Table<Value> table{static_cast<Value*>(args.table.device_data()), args.table.stride};
  launch(kernel, blocks_for(groups, block), block,
         static_cast<std::size_t>(block.y * row_bytes + bytes_of_keys(block.y)), stream,
         device.groups, optimizer, table, matrix(args.state), matrix(args.second_moment),
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
    launch(kernel, blocks_for(groups, block), block,
           static_cast<std::size_t>(bytes_of_keys(block.y)), stream, device.groups, range, next);
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
