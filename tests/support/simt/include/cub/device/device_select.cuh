#pragma once

#include <cub/device/scratch.cuh>

namespace cub {
namespace simulated {

// chosen(i, value) says whether an item stays. In place where in == out.
template <typename In, typename Out, typename Count, typename Chosen>
__global__ void select(Scratch scratch, In in, Out out, Count count, std::int64_t size,
                       Chosen chosen) {
  spoil(scratch);
  std::int64_t selected = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    const auto value = in[i];
    if (chosen(i, value)) out[selected++] = value;
  }
  *count = static_cast<std::remove_reference_t<decltype(*count)>>(selected);
}

template <typename Predicate>
struct ChosenIf {
  Predicate predicate;
  template <typename T>
  bool operator()(std::int64_t, const T& value) {
    return predicate(value);
  }
};
template <typename Flags>
struct ChosenByFlag {
  Flags flags;
  template <typename T>
  bool operator()(std::int64_t i, const T&) {
    return static_cast<bool>(flags[i]);
  }
};
template <typename In>
struct ChosenAtChange {
  In in;
  template <typename T>
  bool operator()(std::int64_t i, const T& value) {
    return i == 0 || !(in[i - 1] == value);
  }
};

template <typename Keys, typename Values, typename KeysOut, typename ValuesOut, typename Count>
__global__ void unique_by_key(Scratch scratch, Keys keys, Values values, KeysOut keys_out,
                              ValuesOut values_out, Count count, std::int64_t size) {
  spoil(scratch);
  std::int64_t selected = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    if (i > 0 && keys[i - 1] == keys[i]) continue;
    keys_out[selected] = keys[i];
    values_out[selected++] = values[i];
  }
  *count = static_cast<std::remove_reference_t<decltype(*count)>>(selected);
}

}  // namespace simulated

struct DeviceSelect {
  template <typename In, typename Out, typename Count, typename Predicate>
  static cudaError_t If(void* scratch, std::size_t& bytes, In in, Out out, Count count,
                        std::int64_t size, Predicate predicate, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceSelect::If", scratch, bytes, size, stream},
               {reads(in, size), writes(out, size ? 1 : 0), writes(count, 1)},
               select<In, Out, Count, ChosenIf<Predicate>>, in, out, count, size,
               ChosenIf<Predicate>{predicate});
  }
  template <typename Data, typename Count, typename Predicate>
  static cudaError_t If(void* scratch, std::size_t& bytes, Data data, Count count,
                        std::int64_t size, Predicate predicate, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceSelect::If", scratch, bytes, size, stream},
               {writes(data, size), writes(count, 1)},
               select<Data, Data, Count, ChosenIf<Predicate>>, data, data, count, size,
               ChosenIf<Predicate>{predicate});
  }
  template <typename In, typename Flags, typename Out, typename Count>
  static cudaError_t Flagged(void* scratch, std::size_t& bytes, In in, Flags flags, Out out,
                             Count count, std::int64_t size, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceSelect::Flagged", scratch, bytes, size, stream},
               {reads(in, size), reads(flags, size), writes(out, size ? 1 : 0), writes(count, 1)},
               select<In, Out, Count, ChosenByFlag<Flags>>, in, out, count, size,
               ChosenByFlag<Flags>{flags});
  }
  template <typename Data, typename Flags, typename Count>
  static cudaError_t Flagged(void* scratch, std::size_t& bytes, Data data, Flags flags, Count count,
                             std::int64_t size, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceSelect::Flagged", scratch, bytes, size, stream},
               {writes(data, size), reads(flags, size), writes(count, 1)},
               select<Data, Data, Count, ChosenByFlag<Flags>>, data, data, count, size,
               ChosenByFlag<Flags>{flags});
  }
  template <typename In, typename Out, typename Count>
  static cudaError_t Unique(void* scratch, std::size_t& bytes, In in, Out out, Count count,
                            std::int64_t size, cudaStream_t stream = nullptr) {
    using namespace simulated;
    return run({"cub::DeviceSelect::Unique", scratch, bytes, size, stream},
               {reads(in, size), writes(out, size ? 1 : 0), writes(count, 1)},
               select<In, Out, Count, ChosenAtChange<In>>, in, out, count, size,
               ChosenAtChange<In>{in});
  }
  template <typename Keys, typename Values, typename KeysOut, typename ValuesOut, typename Count,
            typename Size>
  static cudaError_t UniqueByKey(void* scratch, std::size_t& bytes, Keys keys, Values values,
                                 KeysOut keys_out, ValuesOut values_out, Count count, Size size,
                                 cudaStream_t stream = nullptr) {
    using namespace simulated;
    const auto n = static_cast<std::int64_t>(size);
    return run({"cub::DeviceSelect::UniqueByKey", scratch, bytes, n, stream},
               {reads(keys, n), reads(values, n), writes(keys_out, n ? 1 : 0),
                writes(values_out, n ? 1 : 0), writes(count, 1)},
               unique_by_key<Keys, Values, KeysOut, ValuesOut, Count>, keys, values, keys_out,
               values_out, count, n);
  }
};

}  // namespace cub
