#include "src/data/describe_dataset.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <utility>
#include <vector>

#include "src/data/dataset.h"

namespace serrate {
namespace {

constexpr std::int64_t kBlock = 1 << 17;  // events read at once

std::string describe_lengths(const Dataset& dataset) {
  const auto& offsets = dataset.user_offsets();
  std::vector<std::int64_t> lengths;
  for (std::size_t user = 0; user + 1 < offsets.size(); ++user) {
    lengths.push_back(offsets[user + 1] - offsets[user]);
  }
  if (lengths.empty()) return "none";
  std::ranges::sort(lengths);
  const auto quantile = [&](double part) {  // the smallest length that `part` of the users reach
    const auto position = static_cast<std::size_t>(part * static_cast<double>(lengths.size()));
    return lengths[std::min(position, lengths.size() - 1)];
  };
  return fmt::format(
      "min {}, median {}, mean {:.1f}, p90 {}, p99 {}, max {}", lengths.front(), quantile(0.5),
      static_cast<double>(dataset.num_events()) / static_cast<double>(lengths.size()),
      quantile(0.9), quantile(0.99), lengths.back());
}

std::string describe_times(const Dataset& dataset) {
  if (dataset.num_events() == 0) return "none";
  std::int64_t first = INT64_MAX, last = INT64_MIN;
  std::vector<std::int64_t> times;
  for (std::int64_t begin = 0; begin < dataset.num_events(); begin += kBlock) {
    dataset.read_timestamps(begin, std::min(begin + kBlock, dataset.num_events()), times);
    const auto [smallest, largest] = std::ranges::minmax(times);
    first = std::min(first, smallest);
    last = std::max(last, largest);
  }
  return fmt::format("{:%Y-%m-%d %H:%M:%S} to {:%Y-%m-%d %H:%M:%S} UTC",
                     fmt::gmtime(static_cast<std::time_t>(first)),
                     fmt::gmtime(static_cast<std::time_t>(last)));
}

/// Ids of a feature in all events together.
std::int64_t count_values(const Dataset& dataset, std::int64_t feature) {
  std::int64_t count = 0;
  FeatureBags bags;
  for (std::int64_t begin = 0; begin < dataset.num_events(); begin += kBlock) {
    dataset.read_feature(feature, begin, std::min(begin + kBlock, dataset.num_events()), bags);
    count += static_cast<std::int64_t>(bags.values.size());
  }
  return count;
}

}  // namespace

std::string describe_dataset(const std::string& path) {
  const Dataset dataset = Dataset::open(path);
  dataset.verify();
  std::string text = fmt::format(
      "dataset     {}\ndigest      {} (all bytes verified)\nusers       {}\nevents     "
      " {}\n",
      path, dataset.digest(), dataset.num_users(), dataset.num_events());
  text += fmt::format("lengths     {}\n", describe_lengths(dataset));
  text += fmt::format("times       {}\n", describe_times(dataset));
  text += fmt::format("baskets     {}\n", dataset.has_baskets()
                                              ? "a column"
                                              : "none (events of one time are taken as one)");
  for (std::size_t f = 0; f < dataset.features().size(); ++f) {
    const auto& feature = dataset.features()[f];
    text += fmt::format("feature     {}: {} ids, {} in {} events\n", feature.name,
                        feature.vocabulary_size,
                        count_values(dataset, static_cast<std::int64_t>(f)), dataset.num_events());
  }
  for (const auto* name : {"source", "licence", "created_by"}) {
    text += fmt::format("{:<11} {}\n", name, dataset.attribute(name));
  }
  return text;
}

}  // namespace serrate
