#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <numeric>

#include "serrate/jagged_tensor.h"

namespace serrate {
namespace {

std::vector<std::int64_t> prefix_sums(const std::vector<std::int64_t>& sizes) {
  std::vector<std::int64_t> sums(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), sums.begin() + 1);
  return sums;
}

// For one key, whose values are [begin, end) of those of the tensor.
void check_offsets(const std::string& key, std::span<const std::int64_t> offsets,
                   std::int64_t begin, std::int64_t end) {
  if (offsets.empty()) {
    throw usage_error(fmt::format("feature \"{}\": no offsets (n bags have n + 1)", key));
  }
  for (std::size_t bag = 0; bag + 1 < offsets.size(); ++bag) {
    if (offsets[bag + 1] < offsets[bag]) {
      throw usage_error(fmt::format("feature \"{}\": bag {} has length {} (offsets must not fall)",
                                    key, bag, offsets[bag + 1] - offsets[bag]));
    }
  }
  if (offsets.front() != begin || offsets.back() != end) {
    throw usage_error(
        fmt::format("feature \"{}\": offsets run from {} to {}, its values from {} to "
                    "{}",
                    key, offsets.front(), offsets.back(), begin, end));
  }
}

}  // namespace

KeyedJaggedTensor::KeyedJaggedTensor(std::vector<std::string> keys,
                                     const std::vector<std::int64_t>& bags_per_key,
                                     const std::vector<std::int64_t>& values_per_key,
                                     Buffer<std::int64_t> values, Buffer<std::int64_t> offsets,
                                     Buffer<float> weights)
    : keys_(std::move(keys)),
      bag_offsets_(prefix_sums(bags_per_key)),
      value_offsets_(prefix_sums(values_per_key)),
      values_(std::move(values)),
      offsets_(std::move(offsets)),
      weights_(std::move(weights)) {
  if (bags_per_key.size() != keys_.size() || values_per_key.size() != keys_.size()) {
    throw usage_error(fmt::format("KeyedJaggedTensor: {} keys, but sizes for {} and {}",
                                  keys_.size(), bags_per_key.size(), values_per_key.size()));
  }
  if (offsets_.size() != bag_offsets_.back() + 1 || values_.size() != value_offsets_.back()) {
    throw usage_error(
        fmt::format("KeyedJaggedTensor: {} bags need {} offsets and {} values (got {} offsets and "
                    "{} values)",
                    bag_offsets_.back(), bag_offsets_.back() + 1, value_offsets_.back(),
                    offsets_.size(), values_.size()));
  }
  if (weighted() && weights_.size() != values_.size()) {
    throw usage_error(fmt::format("KeyedJaggedTensor: {} weights for {} values", weights_.size(),
                                  values_.size()));
  }
}

KeyedJaggedTensor KeyedJaggedTensor::from_offsets(
    const std::vector<std::string>& keys, const std::vector<std::vector<std::int64_t>>& values,
    const std::vector<std::vector<std::int64_t>>& offsets, const Stream& stream) {
  check(values.size() == keys.size() && offsets.size() == keys.size(),
        "from_offsets needs one list of values and one of offsets per key");
  std::vector<std::int64_t> all_values, all_offsets{0}, bags_per_key, values_per_key;
  for (std::size_t k = 0; k < keys.size(); ++k) {
    check_offsets(keys[k], offsets[k], 0, std::ssize(values[k]));
    const std::int64_t first_value = std::ssize(all_values);
    all_values.insert(all_values.end(), values[k].begin(), values[k].end());
    std::transform(offsets[k].begin() + 1, offsets[k].end(), std::back_inserter(all_offsets),
                   [&](std::int64_t offset) { return first_value + offset; });
    bags_per_key.push_back(std::ssize(offsets[k]) - 1);
    values_per_key.push_back(std::ssize(values[k]));
  }
  return {keys, bags_per_key, values_per_key, {all_values, stream}, {all_offsets, stream}};
}

std::int64_t KeyedJaggedTensor::index_of(std::string_view key) const {
  const auto found = std::find(keys_.begin(), keys_.end(), key);
  if (found == keys_.end()) {
    throw usage_error(
        fmt::format("no feature \"{}\" (there are: {})", key, fmt::join(keys_, ", ")));
  }
  return found - keys_.begin();
}

JaggedView KeyedJaggedTensor::feature(std::int64_t key) const {
  check(key >= 0 && key < num_keys(), "feature index out of range");
  JaggedView view;
  view.values = values_.span().subspan(value_offsets_[key], num_values(key));
  view.offsets = offsets_.span().subspan(bag_offsets_[key], num_bags(key) + 1);
  if (weighted()) view.weights = weights_.span().subspan(value_offsets_[key], num_values(key));
  return view;
}

void KeyedJaggedTensor::validate(const Stream& stream) const {
  const std::vector<std::int64_t> offsets = offsets_.to_host(stream);
  for (std::int64_t k = 0; k < num_keys(); ++k) {
    check_offsets(keys_[k], std::span(offsets).subspan(bag_offsets_[k], num_bags(k) + 1),
                  value_offsets_[k], value_offsets_[k + 1]);
  }
}

}  // namespace serrate
