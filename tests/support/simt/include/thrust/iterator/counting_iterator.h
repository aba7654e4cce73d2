#pragma once

#include <cuda_runtime.h>

#include <iterator>

namespace thrust {

/// i, i + 1, ...
template <typename T>
class counting_iterator {
 public:
  using value_type = T;
  using difference_type = std::ptrdiff_t;
  using pointer = const T*;
  using reference = T;
  using iterator_category = std::input_iterator_tag;

  __host__ __device__ explicit counting_iterator(T first) : first_(first) {}
  __host__ __device__ T operator[](long long i) const { return first_ + static_cast<T>(i); }
  __host__ __device__ T operator*() const { return first_; }

 private:
  T first_;
};

}  // namespace thrust
