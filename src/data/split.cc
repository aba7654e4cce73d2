#include "src/data/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <utility>

#include "serrate/error.h"
#include "src/data/user_columns.h"

namespace serrate {
namespace {

constexpr std::array<std::pair<std::string_view, SplitKind>, 3> kNames = {
    {{"last-item", SplitKind::kLastItem},
     {"last-basket", SplitKind::kLastBasket},
     {"time", SplitKind::kTime}}};

/// Calls visit(user, timestamps) for every user in order.
template <typename Visit>
void for_each_user_times(const Dataset& dataset, const Visit& visit) {
  const auto read = [&](std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& times) {
    dataset.read_timestamps(begin, end, times);
  };
  for_each_user(dataset, read, visit);
}

/// The timestamp at position `rank`, below num_events, of all timestamps in order. Counts them in
/// 2^16 buckets, then again inside the bucket it is in, until a bucket is a single value.
std::int64_t nth_timestamp(const Dataset& dataset, std::int64_t rank) {
  constexpr int kBucketBits = 16;
  std::int64_t low = INT64_MAX;
  std::int64_t high = INT64_MIN;
  for_each_user_times(dataset, [&](std::int64_t, std::span<const std::int64_t> times) {
    for (const std::int64_t time : times) {
      low = std::min(low, time);
      high = std::max(high, time);
    }
  });
  std::vector<std::int64_t> counts;
  while (low < high) {
    const std::int64_t base = low;
    const std::int64_t range = high - low;  // of timestamps, far from overflow
    const int shift = std::max(
        0, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(range))) - kBucketBits);
    counts.assign(1 << kBucketBits, 0);
    for_each_user_times(dataset, [&](std::int64_t, std::span<const std::int64_t> times) {
      for (const std::int64_t time : times) {
        if (low <= time && time <= high) ++counts[(time - base) >> shift];
      }
    });
    std::int64_t bucket = 0;
    while (rank >= counts[bucket]) rank -= counts[bucket++];
    const std::int64_t first = bucket << shift;
    const std::int64_t last = std::min(range, first + (std::int64_t{1} << shift) - 1);
    low = base + first;
    high = base + last;
  }
  return low;
}

/// Events have to be in order of time for the last of them to be the latest: reading verifies it.
void verify_times(const Dataset& dataset) {
  for_each_user_times(dataset, [](std::int64_t, std::span<const std::int64_t>) {});
}

// The functions below return train_end. A user with nothing before the target trains on all.

std::vector<std::int64_t> hold_out_last_items(const Dataset& dataset) {
  const std::vector<std::int64_t>& offsets = dataset.user_offsets();
  std::vector<std::int64_t> train_end(dataset.num_users());
  for (std::int64_t user = 0; user < dataset.num_users(); ++user) {
    const std::int64_t end = offsets[user + 1];
    train_end[user] = end - offsets[user] >= 2 ? end - 1 : end;
  }
  return train_end;
}

std::vector<std::int64_t> hold_out_last_baskets(const Dataset& dataset) {
  std::vector<std::int64_t> train_end(dataset.num_users());
  const auto read = [&](std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& keys) {
    if (dataset.has_baskets()) {
      dataset.read_baskets(begin, end, keys);
    } else {
      dataset.read_timestamps(begin, end, keys);
    }
  };
  for_each_user(dataset, read, [&](std::int64_t user, std::span<const std::int64_t> keys) {
    const std::int64_t begin = dataset.user_offsets()[user];
    const auto first = keys.empty() ? keys.begin() : std::ranges::find(keys, keys.back());
    train_end[user] =
        first == keys.begin() ? dataset.user_offsets()[user + 1] : begin + (first - keys.begin());
  });
  return train_end;
}

std::vector<std::int64_t> hold_out_from(const Dataset& dataset, std::int64_t cut) {
  std::vector<std::int64_t> train_end(dataset.num_users());
  for_each_user_times(dataset, [&](std::int64_t user, std::span<const std::int64_t> times) {
    train_end[user] =
        dataset.user_offsets()[user] + (std::ranges::lower_bound(times, cut) - times.begin());
  });
  return train_end;
}

std::vector<std::int64_t> hold_out(const Dataset& dataset, SplitKind kind, double time_quantile) {
  switch (kind) {
    case SplitKind::kLastItem:
      verify_times(dataset);
      return hold_out_last_items(dataset);
    case SplitKind::kLastBasket:
      if (dataset.has_baskets()) verify_times(dataset);
      return hold_out_last_baskets(dataset);
    default:
      const double rank = time_quantile * static_cast<double>(dataset.num_events());
      return hold_out_from(dataset, nth_timestamp(dataset, std::min(static_cast<std::int64_t>(rank),
                                                                    dataset.num_events() - 1)));
  }
}

}  // namespace

SplitKind split_kind_from_string(std::string_view name) {
  for (const auto& [known, kind] : kNames) {
    if (name == known) return kind;
  }
  throw usage_error(fmt::format(
      "unknown split \"{}\" (last-item, last-basket and time are known): choose one of them",
      name));
}

std::string to_string(SplitKind kind) {
  return std::string(
      std::ranges::find(kNames, kind, &std::pair<std::string_view, SplitKind>::second)->first);
}

Split make_split(const Dataset& dataset, SplitKind kind, double time_quantile) {
  if (!(time_quantile > 0 && time_quantile < 1)) {
    throw usage_error(fmt::format(
        "the time quantile is {} (the share of events to train on): give one between 0 and 1",
        time_quantile));
  }
  Split split;
  split.train_end = hold_out(dataset, kind, time_quantile);
  const std::vector<std::int64_t>& offsets = dataset.user_offsets();
  split.cases.reserve(dataset.num_users());
  for (std::int64_t user = 0; user < dataset.num_users(); ++user) {
    const std::int64_t target = split.train_end[user];
    if (offsets[user] < target && target < offsets[user + 1]) {
      split.cases.push_back({user, offsets[user], target, target});
    }
  }
  return split;
}

}  // namespace serrate
