#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "src/data/dataset.h"
#include "src/data/dataset_writer.h"

namespace serrate {

/// A user written out by hand. What is left empty gets times 0, 1, 2, ..., no baskets, no tags.
struct TinyUser {
  std::vector<std::int64_t> items;
  std::vector<std::int64_t> timestamps = {};
  std::vector<std::int64_t> baskets = {};
  std::vector<std::vector<std::int64_t>> tags = {};  // a bag per event
};

/// Writes users to a file and opens it. Features: "item" and, where the first user has tags, "tag"
/// with ids below 100. Baskets where the first user has them.
inline Dataset tiny_dataset(std::vector<TinyUser> users, std::int64_t num_items) {
  DatasetSpec spec;
  spec.num_users = static_cast<std::int64_t>(users.size());
  spec.with_baskets = !users.front().baskets.empty();
  spec.features.push_back({"item", num_items});
  const bool with_tags = !users.front().tags.empty();
  std::int64_t num_tags = 0;
  for (TinyUser& user : users) {
    spec.num_events += static_cast<std::int64_t>(user.items.size());
    for (const auto& bag : user.tags) num_tags += static_cast<std::int64_t>(bag.size());
    for (std::size_t i = user.timestamps.size(); i < user.items.size(); ++i) {
      user.timestamps.push_back(static_cast<std::int64_t>(i));
    }
  }
  if (with_tags) spec.features.push_back({"tag", 100, num_tags});

  const std::string path =
      fmt::format("{}{}_{}.h5", testing::TempDir(),
                  testing::UnitTest::GetInstance()->current_test_info()->name(), getpid());
  DatasetWriter writer(path, spec);
  for (const TinyUser& user : users) {
    UserEvents events{user.timestamps, user.baskets, {{user.items, {}}}};
    std::vector<std::int64_t> values;
    std::vector<std::int64_t> offsets{0};
    for (const auto& bag : user.tags) {
      values.insert(values.end(), bag.begin(), bag.end());
      offsets.push_back(static_cast<std::int64_t>(values.size()));
    }
    if (with_tags) events.features.push_back({values, offsets});
    writer.append_user(events);
  }
  writer.commit();
  Dataset dataset = Dataset::open(path);
  std::filesystem::remove(path);  // stays readable while it is open
  return dataset;
}

}  // namespace serrate
