#pragma once

#include <cuda_runtime.h>

#include <iterator>

namespace thrust {

/// function(base[0]), function(base[1]), ...
template <typename Function, typename Base>
class transform_iterator {
 public:
  using value_type =
      std::decay_t<std::invoke_result_t<Function, typename std::iterator_traits<Base>::value_type>>;
  using difference_type = std::ptrdiff_t;
  using pointer = const value_type*;
  using reference = value_type;
  using iterator_category = std::input_iterator_tag;

  __host__ __device__ transform_iterator(Base base, Function function)
      : base_(base), function_(function) {}
  __host__ __device__ value_type operator[](long long i) const { return function_(base_[i]); }
  __host__ __device__ value_type operator*() const { return function_(base_[0]); }

 private:
  Base base_;
  Function function_;
};

template <typename Base, typename Function>
transform_iterator<Function, Base> make_transform_iterator(Base base, Function function) {
  return {base, function};
}

}  // namespace thrust
