#pragma once

#include <cuda_runtime.h>

namespace thrust {

/// i, i + 1, ...
template <typename T>
class counting_iterator {
 public:
  __host__ __device__ explicit counting_iterator(T first) : first_(first) {}
  __host__ __device__ T operator[](long long i) const { return first_ + static_cast<T>(i); }

 private:
  T first_;
};

}  // namespace thrust
