#include "src/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset_writer.h"
#include "src/data/describe_dataset.h"
#include "src/data/generate.h"
#include "src/data/split.h"
#include "tests/data/example_dataset.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using Ids = std::vector<std::int64_t>;

TEST(Dataset, KeepsWhatTheWriterGot) {
  const TemporaryFolder folder;
  write_example(folder.file("a.h5"));
  const auto dataset = Dataset::open(folder.file("a.h5"));
  EXPECT_EQ(dataset.num_users(), 2);
  EXPECT_EQ(dataset.num_events(), 4);
  EXPECT_EQ(dataset.num_items(), 3);
  EXPECT_THAT(dataset.user_offsets(), ElementsAre(0, 3, 4));
  ASSERT_EQ(dataset.features().size(), 2u);
  EXPECT_EQ(dataset.features()[1].name, "tags");
  EXPECT_EQ(dataset.features()[1].vocabulary_size, 2);
  EXPECT_EQ(dataset.feature_index("tags"), 1);
  EXPECT_EQ(dataset.attribute("source"), "by hand");
  EXPECT_EQ(dataset.attribute("licence"), "CC0");

  Ids values;
  dataset.read_items(1, 4, values);
  EXPECT_THAT(values, ElementsAre(0, 2, 1));
  dataset.read_timestamps(0, 4, values);
  EXPECT_THAT(values, ElementsAre(10, 10, 20, 5));
  ASSERT_TRUE(dataset.has_baskets());
  dataset.read_baskets(2, 4, values);
  EXPECT_THAT(values, ElementsAre(8, 9));
  FeatureBags bags;
  dataset.read_feature(1, 1, 4, bags);
  EXPECT_THAT(bags.values, ElementsAre(1, 0, 0));
  EXPECT_THAT(bags.offsets, ElementsAre(0, 0, 1, 3));
  dataset.read_feature(0, 2, 4, bags);
  EXPECT_THAT(bags.values, ElementsAre(2, 1));
  EXPECT_THAT(bags.offsets, ElementsAre(0, 1, 2));
  dataset.read_feature(1, 1, 1, bags);
  EXPECT_TRUE(bags.values.empty());
  EXPECT_THAT(bags.offsets, ElementsAre(0));

  EXPECT_EQ(dataset.vocabulary_entry(0, 0), "apple");
  EXPECT_EQ(dataset.vocabulary_entry(0, 1), "");
  EXPECT_EQ(dataset.vocabulary_entry(0, 2), "çay");
  EXPECT_EQ(dataset.vocabulary_entry(1, 1), "1");  // has no texts
  EXPECT_EQ(dataset.user_entry(1), "bob");
}

TEST(Dataset, RefusesReadsOutsideOfIt) {
  const TemporaryFolder folder;
  write_example(folder.file("a.h5"));
  const auto dataset = Dataset::open(folder.file("a.h5"));
  Ids values;
  FeatureBags bags;
  EXPECT_THROW(dataset.read_items(3, 5, values), Error);
  EXPECT_THROW(dataset.read_timestamps(-1, 2, values), Error);
  EXPECT_THROW(dataset.read_feature(1, 2, 1, bags), Error);
  EXPECT_THROW(dataset.vocabulary_entry(0, 3), Error);
  EXPECT_THROW(dataset.user_entry(2), Error);
  EXPECT_THAT(message_of<Error>([&] { dataset.feature_index("price"); }),
              AllOf(HasSubstr("no feature 'price'"), HasSubstr("item, tags")));
}

TEST(DatasetWriter, LeavesNothingUnlessCommitted) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  const DatasetSpec spec{.num_users = 1, .num_events = 2, .features = {{"item", 3}}};
  const Ids times = {1, 2}, items = {0, 1}, falling = {2, 1}, too_large = {0, 3};
  {
    DatasetWriter(path, spec).append_user({times, {}, {{items, {}}}});
  }
  EXPECT_THAT(message_of<Error>([&] { DatasetWriter(path, spec).commit(); }),
              HasSubstr("/user_offsets got 1 values, 2 were announced"));
  const auto append = [&](const UserEvents& events) {
    DatasetWriter(path, spec).append_user(events);
  };
  EXPECT_THROW(append({falling, {}, {{items, {}}}}), Error);
  EXPECT_THROW(append({times, times, {{items, {}}}}), Error);
  EXPECT_THROW(append({times, {}, {{std::span(items).first(1), {}}}}), Error);
  EXPECT_THROW(append({times, {}, {{too_large, {}}}}), Error);
  EXPECT_THROW(append({times, {}, {}}), Error);
  const Ids early = {INT64_MIN, 1}, late = {1, 6'000'000'000'001};
  EXPECT_THROW(append({early, {}, {{items, {}}}}), Error);
  EXPECT_THROW(append({late, {}, {{items, {}}}}), Error);
  EXPECT_THAT(message_of<Error>([&] { DatasetWriter(path, {.features = {{"a/b", 1}}}); }),
              HasSubstr("'a/b'"));
  EXPECT_THAT(message_of<Error>([&] { DatasetWriter(path, {.features = {{"a", -1}}}); }),
              HasSubstr("feature a cannot have -1 ids"));
  EXPECT_THAT(message_of<Error>([&] { DatasetWriter(path, {.features = {{"a", 1}, {"a", 1}}}); }),
              HasSubstr("two features are called a"));
  EXPECT_TRUE(std::filesystem::is_empty(std::filesystem::path(path).parent_path()));
}

TEST(Dataset, MayBeEmpty) {
  const TemporaryFolder folder;
  DatasetWriter(folder.file("a.h5"), {.features = {{"item", 0}, {"tags", 0, 0}}}).commit();
  const auto dataset = Dataset::open(folder.file("a.h5"));
  dataset.verify();
  EXPECT_EQ(dataset.num_users(), 0);
  EXPECT_EQ(dataset.num_events(), 0);
  for (const auto kind : {SplitKind::kLastItem, SplitKind::kLastBasket, SplitKind::kTime}) {
    EXPECT_TRUE(make_split(dataset, kind).cases.empty());
  }
  EXPECT_THAT(describe_dataset(folder.file("a.h5")), HasSubstr("events      0"));
}

TEST(DatasetWriter, AFullDiskLeavesWhatWasThere) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  const auto write = [&] {
    generate({.output = path, .users = 100, .items = 10, .events = 65'536, .seed = 1});
  };
  write();
  const rlim_t size = std::filesystem::file_size(path);
  folder.write("a.h5", "older");
  const auto signal = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  std::vector<std::string> messages;
  for (const rlim_t bytes :
       {rlim_t{0}, rlim_t{1'000}, rlim_t{20'000}, size / 2, size - 2'000, size - 1}) {
    const rlimit small = {bytes, before.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &small);
    messages.push_back(message_of<Error>(write));
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, signal);
  for (const std::string& message : messages) {
    EXPECT_THAT(message, AllOf(HasSubstr(path), HasSubstr("File too large")));
  }
  EXPECT_TRUE(testing::read_file(path) == "older");
  const std::filesystem::directory_iterator entries(std::filesystem::path(path).parent_path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
}

}  // namespace
}  // namespace serrate
