#include "src/data/convert.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset.h"
#include "src/data/describe_dataset.h"
#include "src/data/parse_time.h"
#include "tests/support/packed_file.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using ::testing::Not;
using testing::TemporaryFolder;

/// Everything a dataset holds, as texts: "user item time [basket] {feature: words}" per event.
std::vector<std::string> events_of(const std::string& path) {
  const Dataset dataset = Dataset::open(path);
  std::vector<std::int64_t> items, times, baskets;
  dataset.read_items(0, dataset.num_events(), items);
  dataset.read_timestamps(0, dataset.num_events(), times);
  if (dataset.has_baskets()) dataset.read_baskets(0, dataset.num_events(), baskets);
  std::vector<std::string> events;
  for (std::int64_t user = 0; user < dataset.num_users(); ++user) {
    for (std::int64_t e = dataset.user_offsets()[user]; e < dataset.user_offsets()[user + 1]; ++e) {
      std::string text = fmt::format("{} {} {}", dataset.user_entry(user),
                                     dataset.vocabulary_entry(0, items[e]), times[e]);
      if (!baskets.empty()) text += fmt::format(" b{}", baskets[e]);
      for (std::size_t f = 1; f < dataset.features().size(); ++f) {
        FeatureBags bags;
        dataset.read_feature(static_cast<std::int64_t>(f), e, e + 1, bags);
        text += " {";
        for (const std::int64_t id : bags.values) {
          text += dataset.vocabulary_entry(static_cast<std::int64_t>(f), id) + ";";
        }
        text += "}";
      }
      events.push_back(text);
    }
  }
  return events;
}

/// Options for the columns user, item and time of a file.
ConvertOptions options_for(const std::string& input, const std::string& output) {
  return {.input = input, .output = output, .user = "user", .item = "item", .time = "time"};
}

TEST(Convert, SortsByUserTimeAndInputOrder) {
  const TemporaryFolder folder;
  const std::string input = folder.write("a.csv",
                                         "time,item,user,basket,colour,size\n"
                                         "30,pen,bob,x,red,\n"
                                         "20,cup,anna,y,,L\n"
                                         "10,cup,bob,z,blue,L\n"
                                         "30,ink,bob,x,red,S\n"
                                         "20,pen,anna,y,blue,\n");
  auto options = options_for(input, folder.file("a.h5"));
  options.basket = "basket";
  options.categorical = {"colour", "size"};
  options.licence = "CC0";
  const ConvertReport report = convert(options);
  EXPECT_THAT(events_of(options.output),
              ElementsAre("bob cup 10 b2 {blue;} {L;}", "bob pen 30 b0 {red;} {}",
                          "bob ink 30 b0 {red;} {S;}", "anna cup 20 b1 {} {L;}",
                          "anna pen 20 b1 {blue;} {}"));
  EXPECT_EQ(report.num_rows, 5);
  EXPECT_EQ(report.num_events, 5);
  EXPECT_EQ(report.num_users, 2);
  EXPECT_EQ(report.num_items, 3);
  const Dataset dataset = Dataset::open(options.output);
  EXPECT_EQ(dataset.vocabulary_entry(0, 0), "pen");  // ids in the order of the input
  EXPECT_EQ(dataset.vocabulary_entry(0, 2), "ink");
  EXPECT_EQ(dataset.attribute("source"), "a.csv");
  EXPECT_EQ(dataset.attribute("licence"), "CC0");
  EXPECT_THAT(describe_dataset(options.output),
              AllOf(HasSubstr("users       2\n"), HasSubstr("events      5\n"),
                    HasSubstr("min 2, median 3, mean 2.5, p90 3, p99 3, max 3"),
                    HasSubstr("1970-01-01 00:00:10 to 1970-01-01 00:00:30 UTC"),
                    HasSubstr("item: 3 ids, 5 in 5 events"), HasSubstr("size: 2 ids, 3 in 5"),
                    HasSubstr("a.csv"), HasSubstr("CC0")));
}

TEST(Convert, ReadsRecboleFiles) {
  const TemporaryFolder folder;
  const ConvertOptions options = {
      .input = folder.write("a.inter",
                            "user_id:token\titem_id:token\ttimestamp:float\ttags:token_seq\n"
                            "1\ta b\t2.75\tx y\n1\tc\t2.25\t\n1\tc\t-0.5\ty  z \n"),
      .output = folder.file("a.h5"),
      .categorical = {"tags"}};
  convert(options);
  EXPECT_THAT(events_of(options.output),
              ElementsAre("1 c -1 {y;z;}", "1 c 2 {}", "1 a b 2 {x;y;}"));
}

TEST(Convert, ReadsPackedAndQuotedInput) {
  const TemporaryFolder folder;
  const std::string text =
      "user,item,time\r\n\"a, b\",\"5\"\" disk\",2010-12-01\r\n\"a, "
      "b\",çay,2010-12-01T00:00:01Z\r\n";
  for (const std::string& bytes : {text, testing::gzip(text), testing::xz(text)}) {
    const auto options = options_for(folder.write("a.csv", bytes), folder.file("a.h5"));
    convert(options);
    EXPECT_THAT(events_of(options.output),
                ElementsAre("a, b 5\" disk 1291161600", "a, b çay 1291161601"));
  }
}

TEST(Convert, KeepsTheKCore) {
  const TemporaryFolder folder;
  // c goes with user 3 (one row); then b has one row left and goes; then user 2 has one row left.
  auto options = options_for(folder.write("a.csv",
                                          "user,item,time,basket,shop\n"
                                          "2,b,1,p,s\n2,a,2,p,t\n1,a,1,q,t\n1,a,2,q,u\n1,d,3,q,u\n"
                                          "1,d,4,r,u\n3,b,1,r,s\n"),
                             folder.file("a.h5"));
  options.basket = "basket";
  options.categorical = {"shop"};
  options.k_core = 2;
  const ConvertReport report = convert(options);
  EXPECT_THAT(events_of(options.output),
              ElementsAre("1 a 1 b1 {t;}", "1 a 2 b1 {u;}", "1 d 3 b1 {u;}", "1 d 4 b2 {u;}"));
  EXPECT_EQ(report.num_dropped_by_k_core, 3);
  EXPECT_EQ(report.num_users, 1);
  EXPECT_EQ(report.num_items, 2);
  const Dataset dataset = Dataset::open(options.output);
  EXPECT_EQ(dataset.features()[1].vocabulary_size, 2);  // s is gone
  EXPECT_THAT(to_string(report), HasSubstr("3 dropped by the k-core"));

  options.k_core = 5;
  options.output = folder.file("none.h5");
  EXPECT_THAT(message_of<Error>([&] { convert(options); }),
              AllOf(HasSubstr(options.input), HasSubstr("k-core 5")));
  EXPECT_FALSE(std::filesystem::exists(options.output));
}

TEST(Convert, ReportsBadRowsWithTheirLines) {
  const TemporaryFolder folder;
  auto options = options_for(
      folder.write(
          "a.csv",
          "user,item,time\na,x,1\na,x\n\n,x,1\na,,1\na,x,noon\na,x,\nb,y,2,3\nb,\"y\",2\n"),
      folder.file("a.h5"));
  const std::string message = message_of<Error>([&] { convert(options); });
  EXPECT_THAT(message, AllOf(HasSubstr(options.input + " has 6 bad rows of 8"),
                             HasSubstr("line 3: 2 fields, the header has 3"),
                             HasSubstr("line 5: user is empty"), HasSubstr("line 6: item is empty"),
                             HasSubstr("line 7: time 'noon' is neither")));
  EXPECT_THAT(message, AllOf(HasSubstr("line 8: time ''"), HasSubstr("line 9: 4 fields")));
  EXPECT_FALSE(std::filesystem::exists(options.output));

  options.bad_rows = BadRows::kSkip;
  const ConvertReport report = convert(options);
  EXPECT_EQ(report.num_rows, 8);
  EXPECT_EQ(report.num_bad_rows, 6);
  ASSERT_EQ(report.first_bad_rows.size(), 6u);
  EXPECT_EQ(report.first_bad_rows[3].line, 7);
  EXPECT_THAT(to_string(report), HasSubstr("line 9: 4 fields, the header has 3"));
  EXPECT_THAT(events_of(options.output), ElementsAre("a x 1", "b y 2"));
}

TEST(Convert, ListsTheFirstTenBadRows) {
  const TemporaryFolder folder;
  std::string text = "user,item,time\n";
  for (int i = 0; i < 12; ++i) text += "bad\n";
  const auto options = options_for(folder.write("a.csv", text), folder.file("a.h5"));
  EXPECT_THAT(message_of<Error>([&] { convert(options); }),
              AllOf(HasSubstr("12 bad rows of 12"), HasSubstr("line 11: "),
                    Not(HasSubstr("line 12: ")), HasSubstr("...")));
}

TEST(Convert, NamesWrongColumnsAndFolders) {
  const TemporaryFolder folder;
  const std::string input = folder.write("a.csv", "user,item,time\na,x,1\n");
  auto options = options_for(input, folder.file("a.h5"));
  options.categorical = {"price"};
  EXPECT_THAT(message_of<Error>([&] { convert(options); }),
              HasSubstr(input + " has no column 'price' (its header has: user, item, time)"));
  options.categorical = {"item"};
  EXPECT_THAT(message_of<Error>([&] { convert(options); }), HasSubstr("item is named twice"));
  options = options_for(input, folder.file("none/a.h5"));
  EXPECT_THAT(message_of<Error>([&] { convert(options); }), HasSubstr("no folder"));
  options = options_for(input, input);
  EXPECT_THAT(message_of<Error>([&] { convert(options); }), HasSubstr("both input and output"));
  const auto empty = options_for(folder.write("b.csv", "user,item,time\n"), folder.file("b.h5"));
  EXPECT_THAT(message_of<Error>([&] { convert(empty); }), HasSubstr("leaves no events"));
}

// 30,000 rows in random order against a plain program over ordered maps.
TEST(Convert, AgreesWithANaiveProgramOnManyRows) {
  const TemporaryFolder folder;
  std::mt19937 random(7);
  std::string text = "user\titem\ttime\n";
  std::vector<std::tuple<int, int, int>> rows;
  for (int i = 0; i < 30'000; ++i) {
    const int user = static_cast<int>(random() % 5'000), item = static_cast<int>(random() % 4'000);
    rows.emplace_back(user, item, static_cast<int>(random() % 1'000));
    text += fmt::format("{}\t{}\t{}\n", user, item, std::get<2>(rows.back()));
  }
  auto options = options_for(folder.write("a.tsv.gz", testing::gzip(text)), folder.file("a.h5"));
  options.k_core = 4;
  const ConvertReport report = convert(options);

  for (bool changed = true; changed;) {
    std::map<int, int> users, items;
    for (const auto& [user, item, time] : rows) ++users[user], ++items[item];
    changed = std::erase_if(rows, [&](const auto& row) {
                return users[std::get<0>(row)] < 4 || items[std::get<1>(row)] < 4;
              }) > 0;
  }
  ASSERT_GT(rows.size(), 1'000u);
  ASSERT_LT(rows.size(), 29'000u);
  std::vector<int> user_order;
  std::map<int, std::multimap<int, int>> histories;  // by user, then time, then position
  std::set<int> items;
  for (const auto& [user, item, time] : rows) {
    if (!histories.contains(user)) user_order.push_back(user);
    histories[user].emplace(time, item);
    items.insert(item);
  }
  std::vector<std::string> expected;
  for (const int user : user_order) {
    for (const auto& [time, item] : histories[user]) {
      expected.push_back(fmt::format("{} {} {}", user, item, time));
    }
  }
  EXPECT_EQ(events_of(options.output), expected);
  EXPECT_EQ(report.num_items, static_cast<std::int64_t>(items.size()));
}

TEST(ParseTime, ReadsSecondsAndDates) {
  const auto seconds = [](std::string_view text) {
    return static_cast<double>(parse_time_us(text).value()) / 1e6;
  };
  EXPECT_EQ(seconds("0"), 0);
  EXPECT_EQ(seconds("-5"), -5);
  EXPECT_EQ(seconds("1260779640"), 1260779640);
  EXPECT_EQ(seconds("978300760.25"), 978300760.25);
  EXPECT_EQ(seconds("9.783e8"), 978300000);
  EXPECT_EQ(seconds("1970-01-02"), 86'400);
  EXPECT_EQ(seconds("2000-02-29"), 951'782'400);
  EXPECT_EQ(seconds("2009-12-14 08:34"), 1260779640);
  EXPECT_EQ(seconds("2009-12-14T08:34:00Z"), 1260779640);
  EXPECT_EQ(seconds("2009-12-14T10:04:00.5+01:30"), 1260779640.5);
  EXPECT_EQ(seconds("2009-12-14T00:34-0800"), 1260779640);
  for (const char* bad :
       {"", " 1", "1 ", "x", "nan", "inf", "1e300", "99999999999999", "2009-13-01", "2001-02-29",
        "2009-12-14T", "2009-12-14T08", "2009-12-14T24:00", "2009-12-14T08:34:00x",
        "2009-12-14 08:34:61", "2009-12-1", "12/01/2010", "2009-12-14T08:34:00.Z",
        "2009-12-14T08:34+1"}) {
    EXPECT_FALSE(parse_time_us(bad)) << bad;
  }
}

}  // namespace
}  // namespace serrate
