#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/device_span.h"

namespace serrate {

/// Rows of different lengths: bag i holds values [offsets[i] - offsets[0], offsets[i + 1] -
/// offsets[0]). A view of one feature of a KeyedJaggedTensor.
struct JaggedView {
  DeviceSpan<const std::int64_t> values;   ///< [num_values]
  DeviceSpan<const std::int64_t> offsets;  ///< [num_bags + 1]
  DeviceSpan<const float> weights;         ///< [num_values], or empty for unweighted

  std::int64_t num_bags() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t num_values() const { return static_cast<std::int64_t>(values.size()); }
};

/// The ids of several sparse features, as TorchRec's class of this name, with its own number of
/// bags for each key: a sequence feature has one bag per event, a context feature one per sample.
/// Key after key, bag after bag: the bags of key k are offsets [bag_offsets[k], bag_offsets[k+1]].
class KeyedJaggedTensor {
 public:
  KeyedJaggedTensor() = default;
  /// `values_per_key` and `bags_per_key` are sizes, on the host; `offsets` has one entry per bag
  /// and a last one, from 0 to values.size(); `weights` is empty or as long as `values`.
  /// Throws Error (usage) when the sizes do not fit each other.
  KeyedJaggedTensor(std::vector<std::string> keys, const std::vector<std::int64_t>& bags_per_key,
                    const std::vector<std::int64_t>& values_per_key, Buffer<std::int64_t> values,
                    Buffer<std::int64_t> offsets, Buffer<float> weights = {});

  /// From the host, one list per key: bag i of key k has the ids values[k][offsets[k][i]],
  /// values[k][offsets[k][i] + 1], ..., values[k][offsets[k][i + 1] - 1]. Throws Error (usage)
  /// naming the key, and the bag, where offsets fall or do not run from 0 to the end of the values.
  static KeyedJaggedTensor from_offsets(const std::vector<std::string>& keys,
                                        const std::vector<std::vector<std::int64_t>>& values,
                                        const std::vector<std::vector<std::int64_t>>& offsets,
                                        const Stream& stream);

  std::int64_t num_keys() const { return static_cast<std::int64_t>(keys_.size()); }
  const std::vector<std::string>& keys() const { return keys_; }
  /// The position of a key; throws Error naming the keys there are when it is missing.
  std::int64_t index_of(std::string_view key) const;
  std::int64_t num_bags(std::int64_t key) const {
    return bag_offsets_[key + 1] - bag_offsets_[key];
  }
  std::int64_t num_values(std::int64_t key) const {
    return value_offsets_[key + 1] - value_offsets_[key];
  }
  bool weighted() const { return weights_.size() > 0; }
  /// The bags of one key, in the memory of the tensor's device.
  JaggedView feature(std::int64_t key) const;

  const Buffer<std::int64_t>& values() const { return values_; }
  const Buffer<std::int64_t>& offsets() const { return offsets_; }
  const Buffer<float>& weights() const { return weights_; }

  /// Checks that offsets start at 0, never fall, and end each key where its values end: throws
  /// Error (usage) naming the key and the bag. Copies them to the host and waits for the stream.
  void validate(const Stream& stream) const;

 private:
  std::vector<std::string> keys_;
  std::vector<std::int64_t> bag_offsets_{0};    // [num_keys + 1]
  std::vector<std::int64_t> value_offsets_{0};  // [num_keys + 1]
  Buffer<std::int64_t> values_;
  Buffer<std::int64_t> offsets_;
  Buffer<float> weights_;
};

}  // namespace serrate
