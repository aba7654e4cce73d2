#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <random>
#include <vector>

// Device-wide calls are kernels of one thread: slow, with all checks. They ask for temporary memory
// that depends on the size of the problem, and use both its ends, as the real ones may.
namespace cub::simulated {

/// A coin of the schedule, for what a call leaves open.
bool coin();
/// A finding about a call of the host.
void complain(const char* call, const char* problem);
/// SERRATE_SIMT_SEED, for what is open but the same at each call.
std::uint64_t seed();

template <typename Iterator>
using Value = typename std::iterator_traits<Iterator>::value_type;

/// An array that a call reads or writes; of other iterators than pointers nothing is known.
struct Argument {
  std::uintptr_t begin = 0, end = 0;
  bool written = false;
};
template <typename Iterator>
Argument argument(Iterator it, std::int64_t size, bool written) {
  if constexpr (std::is_pointer_v<Iterator>) {
    const auto begin = reinterpret_cast<std::uintptr_t>(it);
    return {begin, begin + static_cast<std::uint64_t>(size) * sizeof(*it), written};
  } else {
    return {0, 0, written};
  }
}
template <typename Iterator>
Argument reads(Iterator it, std::int64_t size) {
  return argument(it, size, false);
}
template <typename Iterator>
Argument writes(Iterator it, std::int64_t size) {
  return argument(it, size, true);
}

struct Call {
  const char* name;
  void* scratch;
  std::size_t& bytes;
  std::int64_t size;  // items
  cudaStream_t stream;
};

struct Scratch {
  std::uint8_t* begin;
  std::size_t bytes;
};

inline void spoil(Scratch scratch) {
  for (std::size_t i = 0; i < 512; i += 8) {
    *reinterpret_cast<std::uint64_t*>(scratch.begin + i) = 0xABABABABABABABAB;
  }
  scratch.begin[scratch.bytes - 1] = 0xAB;
}

/// The first call of the two says how much memory the second needs; the second launches.
template <typename... Parameters, typename... Arguments>
cudaError_t run(const Call& call, std::initializer_list<Argument> arrays,
                void (*kernel)(Scratch, Parameters...), Arguments... arguments) {
  const std::size_t needed =
      1024 + 8 * static_cast<std::size_t>(std::max<std::int64_t>(call.size, 0));
  if (!call.scratch) {
    call.bytes = needed;
    return cudaSuccess;
  }
  if (call.size < 0) {
    complain(call.name, "the number of items is negative");
    return cudaErrorInvalidValue;
  }
  if (call.bytes < needed) {
    complain(call.name,
             "the temporary memory is smaller than the first call with these sizes asked for");
    return cudaErrorInvalidValue;
  }
  const auto scratch = reinterpret_cast<std::uintptr_t>(call.scratch);
  const auto meet = [](const Argument& a, const Argument& b) {
    return a.begin < b.end && b.begin < a.end;
  };
  for (const Argument& a : arrays) {
    if (meet(a, {scratch, scratch + needed})) {
      complain(call.name, "the temporary memory overlaps an argument");
      return cudaErrorInvalidValue;
    }
    for (const Argument& b : arrays) {
      if (&a != &b && (a.written || b.written) && meet(a, b)) {
        complain(call.name, "an output overlaps another argument");
        return cudaErrorInvalidValue;
      }
    }
  }
  const cudaLaunchConfig_t config{1, 1, 0, call.stream, nullptr, 0};
  return simt::launch_kernel(config, true, kernel,
                             Scratch{static_cast<std::uint8_t*>(call.scratch), needed},
                             arguments...);
}

/// What op makes of `sum` and a value, as the real ones keep it between.
template <typename Op, typename Sum, typename T>
using Accumulator = std::decay_t<std::invoke_result_t<Op, Sum, T>>;

/// Values combined in some order: op has to be associative and commutative. It is the same at each
/// call of one program.
template <typename T, typename Op>
T combine(std::vector<T> values, T initial, Op op) {
  std::mt19937_64 order(seed() + values.size());
  std::shuffle(values.begin(), values.end(), order);
  values.push_back(initial);
  while (values.size() > 1) {
    std::vector<T> next;
    for (std::size_t i = 0; i < values.size();) {
      if (i + 1 < values.size() && order() % 4) {
        next.push_back(static_cast<T>(op(values[i], values[i + 1])));
        i += 2;
      } else {
        next.push_back(values[i++]);
      }
    }
    values = std::move(next);
  }
  return values[0];
}

}  // namespace cub::simulated
