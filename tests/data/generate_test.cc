#include "src/data/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using testing::message_of;
using testing::read_file;
using testing::TemporaryFolder;
using Ids = std::vector<std::int64_t>;

class Generate : public ::testing::Test {
 protected:
  Dataset make(std::int64_t users, std::int64_t items, std::int64_t events,
               std::uint64_t seed = 1) {
    generate({.output = path_, .users = users, .items = items, .events = events, .seed = seed});
    return Dataset::open(path_);
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.file("a.h5");
};

TEST_F(Generate, IsTheSameForTheSameSeed) {
  make(50, 100, 1'000);
  const std::string first = read_file(path_);
  make(50, 100, 1'000);
  EXPECT_TRUE(first == read_file(path_));
  make(50, 100, 1'000, 2);
  EXPECT_FALSE(first == read_file(path_));
}

TEST_F(Generate, HasTheSizesAskedFor) {
  for (const auto& [users, items, events] :
       {std::tuple{1, 1, 1}, {3, 2, 4}, {100, 7, 300}, {100, 1'000, 5'001}}) {
    const Dataset dataset = make(users, items, events);
    EXPECT_EQ(dataset.num_users(), users);
    EXPECT_EQ(dataset.num_items(), items);
    EXPECT_EQ(dataset.num_events(), events);
    const auto& offsets = dataset.user_offsets();
    for (int user = 0; user < users; ++user) {
      EXPECT_GE(offsets[user + 1] - offsets[user], std::min(3, events / users));
    }
  }
}

TEST_F(Generate, IsSkewedAndLongTailed) {
  const Dataset dataset = make(2'000, 500, 100'000);
  Ids lengths, items, counts(500);
  for (int u = 0; u < 2'000; ++u) {
    lengths.push_back(dataset.user_offsets()[u + 1] - dataset.user_offsets()[u]);
  }
  std::ranges::sort(lengths);
  // A log-normal with sigma 1.2 has its mean at twice its median, its p99 at 16 times.
  EXPECT_GT(lengths[1'980], 8 * lengths[1'000]);
  EXPECT_LT(lengths[1'000], 40);
  dataset.read_items(0, 100'000, items);
  for (const std::int64_t item : items) ++counts[item];
  EXPECT_FALSE(std::ranges::is_sorted(counts, std::greater()));
  std::ranges::sort(counts, std::greater());
  // Zipf over 500 items gives the first tenth two thirds of the events.
  const auto tenth = std::accumulate(counts.begin(), counts.begin() + 50, std::int64_t{0});
  EXPECT_GT(tenth, 50'000);
  EXPECT_LT(tenth, 90'000);
}

TEST_F(Generate, TimesRiseAndBasketsShareThem) {
  const Dataset dataset = make(200, 100, 20'000);
  Ids times;
  std::int64_t same = 0, pairs = 0;
  for (int u = 0; u < 200; ++u) {
    dataset.read_timestamps(dataset.user_offsets()[u], dataset.user_offsets()[u + 1], times);
    EXPECT_TRUE(std::ranges::is_sorted(times));
    for (std::size_t i = 1; i < times.size(); ++i) same += times[i] == times[i - 1], ++pairs;
  }
  EXPECT_NEAR(static_cast<double>(same) / static_cast<double>(pairs), 0.3, 0.02);
}

TEST_F(Generate, CategoryFollowsTheItem) {
  const Dataset dataset = make(100, 400, 20'000);
  FeatureBags items, categories;
  dataset.read_feature(0, 0, 20'000, items);
  dataset.read_feature(dataset.feature_index("category"), 0, 20'000, categories);
  EXPECT_EQ(dataset.features()[1].vocabulary_size, 10);  // half the root of 400
  std::map<std::int64_t, std::int64_t> category_of;
  for (std::size_t e = 0; e < items.values.size(); ++e) {
    const auto [found, added] = category_of.emplace(items.values[e], categories.values[e]);
    EXPECT_EQ(found->second, categories.values[e]);
  }
}

// What comes next is told by the current item far better than by popularity.
TEST_F(Generate, NextItemCanBeLearned) {
  const Dataset dataset = make(500, 1'000, 100'000);
  Ids items;
  std::map<std::int64_t, std::int64_t> counts;
  std::map<std::int64_t, std::map<std::int64_t, std::int64_t>> next_counts;
  std::int64_t pairs = 0;
  for (int u = 0; u < 500; ++u) {
    dataset.read_items(dataset.user_offsets()[u], dataset.user_offsets()[u + 1], items);
    for (std::size_t i = 1; i < items.size(); ++i, ++pairs) {
      ++counts[items[i]];
      ++next_counts[items[i - 1]][items[i]];
    }
  }
  const auto largest = [](const auto& map) {
    return std::ranges::max_element(map, {}, [](const auto& entry) { return entry.second; })
        ->second;
  };
  std::int64_t guessed = 0;
  for (const auto& [item, next] : next_counts) guessed += largest(next);
  EXPECT_GT(guessed, 2 * largest(counts));
  EXPECT_GT(guessed, pairs / 7);  // 0.6 x 1/2 x 1/2 are the first follower of the last item
}

TEST_F(Generate, RefusesImpossibleSizes) {
  for (const auto& [users, items, events] : {std::tuple{0, 5, 5}, {5, 0, 5}, {5, 5, 4}}) {
    EXPECT_THAT(message_of<Error>([&] { make(users, items, events); }),
                ::testing::HasSubstr("cannot generate"));
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
}

// A limit on the size of files stands for a disk without room.
TEST_F(Generate, ReportsAFullDiskAndLeavesNothing) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 300'000, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of<Error>([&] { make(100, 100, 50'000); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, ::testing::AllOf(::testing::HasSubstr(path_),
                                        ::testing::HasSubstr("File too large")));
  EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(path_).parent_path()));
}

}  // namespace
}  // namespace serrate
