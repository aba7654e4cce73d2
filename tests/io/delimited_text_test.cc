#include "src/io/delimited_text.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "serrate/error.h"
#include "tests/support/packed_file.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::gzip;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using testing::xz;
using Records = std::vector<std::vector<std::string>>;

/// All records, each with its line number as the first field.
Records records_of(const std::string& path, char separator = 0) {
  DelimitedText text(path, separator);
  Records records;
  while (text.next()) {
    records.push_back({std::to_string(text.line())});
    for (const auto field : text.fields()) records.back().emplace_back(field);
  }
  return records;
}

TEST(DelimitedText, SplitsLinesWithAnyLineEnd) {
  const TemporaryFolder folder;
  const Records expected = {{"2", "a", "", "1"}, {"4", "b"}, {"5", "", "c", "2 \"x\""}};
  EXPECT_EQ(records_of(folder.write("a.tsv", "x\ty\tz\na\t\t1\n\nb\n\tc\t2 \"x\"\n")), expected);
  EXPECT_EQ(records_of(folder.write("b.tsv", "x\ty\tz\r\na\t\t1\r\n\r\nb\r\n\tc\t2 \"x\"")),
            expected);
}

TEST(DelimitedText, ReadsColumnsWithTypesAndAByteOrderMark) {
  const TemporaryFolder folder;
  const DelimitedText text(folder.write(
      "a.inter", "\xEF\xBB\xBFuser_id:token\ttags:token_seq\ttime:float\tns:x\tplain\tplain\n"));
  std::vector<std::string> titles;
  for (const auto& column : text.columns()) titles.push_back(column.name + "|" + column.type);
  EXPECT_THAT(titles, ElementsAre("user_id|token", "tags|token_seq", "time|float", "ns:x|",
                                  "plain|", "plain|"));
  EXPECT_EQ(text.column("tags"), 1u);
  EXPECT_THAT(message_of<Error>([&] { text.column("item"); }),
              AllOf(HasSubstr(text.path() + " has no column 'item'"), HasSubstr("user_id, tags")));
  EXPECT_THAT(message_of<Error>([&] { text.column("plain"); }), HasSubstr("more than one"));
}

TEST(DelimitedText, ReadsQuotedFields) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.csv",
                                        "a,b\n"
                                        "\"x, \"\"y\"\"\",\"\"\n"
                                        "\"two\r\nlines\",1\r\n"
                                        "5\" disk,\"\"\"\"\r\n"
                                        "\"\n\n\",z\n"
                                        "last,\"one\"");
  EXPECT_EQ(records_of(path), (Records{{"2", "x, \"y\"", ""},
                                       {"3", "two\r\nlines", "1"},
                                       {"5", "5\" disk", "\""},
                                       {"6", "\n\n", "z"},
                                       {"9", "last", "one"}}));
}

TEST(DelimitedText, NamesTheLineOfABadQuote) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& text) {
    const std::string path = folder.write("a.csv", text);
    return message_of<Error>([&] { records_of(path); });
  };
  EXPECT_THAT(message("a,b\n1,2\n\"3,4\n5,6\n"),
              HasSubstr(folder.file("a.csv") + ", line 3: a quote is not closed"));
  EXPECT_THAT(message("a,b\n1,\"2"), HasSubstr("line 2: a quote is not closed"));
  EXPECT_THAT(message("a,b\n\"1\"2,3\n"),
              HasSubstr("line 2: there is text behind a closing quote"));
  EXPECT_THAT(message(""), HasSubstr("is empty"));
  EXPECT_THAT(message("\xEF\xBB\xBF"), HasSubstr("is empty"));
  EXPECT_THAT(message(std::string(17 << 20, 'x')), HasSubstr("longer than 16 MiB"));
}

TEST(DelimitedText, FindsTheSeparator) {
  const TemporaryFolder folder;
  for (const char* text : {"a;b,b\n1;2,3\n", "a|b,b\n1|2,3\n", "a\tb,b\n1\t2,3\n"}) {
    EXPECT_EQ(records_of(folder.write("a.csv", text)).front().size(), 3u) << text;
  }
  EXPECT_EQ(records_of(folder.write("a.txt", "a;b;c,d\n1;2;3,4\n")),
            (Records{{"2", "1", "2", "3,4"}}));
  EXPECT_EQ(records_of(folder.write("a.csv", "a|b\n1|2,3\n"), '|'), (Records{{"2", "1", "2,3"}}));
  EXPECT_EQ(records_of(folder.write("a.inter.gz", gzip("a,b\tc\n1,2\t3\n"))),
            (Records{{"2", "1,2", "3"}}));
}

TEST(DelimitedText, UnpacksByContent) {
  const TemporaryFolder folder;
  std::string text = "number,square\n";  // several blocks of every buffer
  for (int i = 0; i < 100'000; ++i) text += fmt::format("{},{}\n", i, i * 7);
  const Records plain = records_of(folder.write("a.csv", text));
  ASSERT_EQ(plain.size(), 100'000u);
  EXPECT_THAT(plain.back(), ElementsAre("100001", "99999", "699993"));
  EXPECT_EQ(records_of(folder.write("b.csv", gzip(text))), plain);
  EXPECT_EQ(records_of(folder.write("c.csv", xz(text))), plain);
  const std::size_t half = text.find('\n', text.size() / 2) + 1;
  EXPECT_EQ(records_of(folder.write("d.csv", gzip(text.substr(0, half)) + gzip(text.substr(half)))),
            plain);
  EXPECT_EQ(records_of(folder.write("e.csv", xz(text.substr(0, half)) + xz(text.substr(half)))),
            plain);
}

TEST(DelimitedText, NoticesDamagedAndMissingFiles) {
  const TemporaryFolder folder;
  std::string text = "a,b\n";
  for (int i = 0; i < 20'000; ++i) text += fmt::format("{},x\n", i * 37);
  for (const std::string& whole : {gzip(text), xz(text)}) {
    for (const std::size_t length : {std::size_t{20}, whole.size() / 2, whole.size() - 3}) {
      const std::string path = folder.write("cut.csv", whole.substr(0, length));
      EXPECT_THAT(message_of<Error>([&] { records_of(path); }),
                  ::testing::ContainsRegex(path + ", line [0-9]+: cannot read all of " + path));
    }
    std::string flipped = whole;
    flipped[whole.size() / 2] ^= 0x10;
    const std::string path = folder.write("flipped.csv", flipped);
    EXPECT_THAT(message_of<Error>([&] { records_of(path); }),
                HasSubstr("cannot read all of " + path));
  }
  EXPECT_THAT(message_of<Error>([&] { DelimitedText(folder.file("none.csv")); }),
              AllOf(HasSubstr("none.csv"), HasSubstr("No such file")));
  EXPECT_THAT(message_of<Error>([&] { DelimitedText(folder.file("")); }), HasSubstr("folder"));
}

}  // namespace
}  // namespace serrate
