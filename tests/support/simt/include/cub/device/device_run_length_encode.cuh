#pragma once

#include <cub/device/scratch.cuh>

namespace cub {
namespace simulated {

template <typename In, typename Unique, typename Lengths, typename Runs>
__global__ void encode_runs(Scratch scratch, In in, Unique unique, Lengths lengths, Runs runs,
                            std::int64_t size) {
  spoil(scratch);
  std::int64_t run = 0;
  for (std::int64_t begin = 0, end = 0; begin < size; begin = end, ++run) {
    while (end < size && in[end] == in[begin]) ++end;
    unique[run] = in[begin];
    lengths[run] = static_cast<Value<Lengths>>(end - begin);
  }
  *runs = static_cast<std::remove_reference_t<decltype(*runs)>>(run);
}

}  // namespace simulated

struct DeviceRunLengthEncode {
  template <typename In, typename Unique, typename Lengths, typename Runs>
  static cudaError_t Encode(void* scratch, std::size_t& bytes, In in, Unique unique,
                            Lengths lengths, Runs runs, int size, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceRunLengthEncode::Encode", scratch, bytes, size, stream},
               {reads(in, size), writes(unique, size ? 1 : 0), writes(lengths, size ? 1 : 0),
                writes(runs, 1)},
               encode_runs<In, Unique, Lengths, Runs>, in, unique, lengths, runs,
               std::int64_t{size});
  }
};

}  // namespace cub
