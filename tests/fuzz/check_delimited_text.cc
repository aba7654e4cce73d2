#include "tests/fuzz/check_delimited_text.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <vector>

#include "src/data/parse_time.h"
#include "src/io/delimited_text.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/verdict.h"

namespace serrate {
namespace {

using Records = std::vector<std::vector<std::string>>;

/// The header, with the types of columns, and all records.
Records read_records(const std::string& path, char separator) {
  DelimitedText text(path, separator);
  Records records(1);
  for (const DelimitedColumn& column : text.columns()) {
    records[0].push_back(column.type.empty() ? column.name : column.name + ":" + column.type);
  }
  std::int64_t line = 1;
  while (text.next()) {
    if (text.line() <= line) fail("lines do not grow", std::to_string(line));
    line = text.line();
    records.emplace_back(text.fields().begin(), text.fields().end());
  }
  return records;
}

std::string quoted(const Records& records) {
  std::string text;
  for (const auto& record : records) {
    for (std::size_t field = 0; field < record.size(); ++field) {
      text += field == 0 ? "\"" : ",\"";
      for (const char c : record[field]) text.append(c == '"' ? 2 : 1, c);
      text += '"';
    }
    text += '\n';
  }
  return text;
}

}  // namespace

void check_delimited_text(const std::string& input) {
  if (input.empty()) return;
  constexpr std::array separators = {'\0', '\t', ',', ';', '|', 'a'};
  const char separator = separators[static_cast<unsigned char>(input[0]) % separators.size()];
  MemoryFile file;
  file.write(std::string_view(input).substr(1));
  const auto read = read_or_refuse([&] { return read_records(file.path(), separator); });
  if (!read) return;
  const Records& records = *read;
  try {
    file.write(quoted(records));
    if (read_records(file.path(), ',') != records) fail("read otherwise", quoted(records));
  } catch (const std::exception& error) {
    fail(error.what(), quoted(records));
  }
}

void check_time(const std::string& text) {
  const auto time = parse_time_us(text);
  if (!time) return;
  constexpr std::int64_t kSecond = 1'000'000;
  constexpr std::int64_t kMost = 6'000'000'000'000 * kSecond;
  if (*time < -kMost || *time > kMost) fail("beyond the last time", text);
  const std::int64_t seconds = *time / kSecond - (*time % kSecond < 0);
  if (parse_time_us(std::to_string(seconds)) != seconds * kSecond) fail("whole seconds", text);

  if (seconds < -62'167'219'200 || seconds >= 253'402'300'800) return;  // years 0 to 9999
  using std::chrono::microseconds;
  const std::chrono::sys_time<microseconds> point{microseconds(*time)};
  const auto day = std::chrono::floor<std::chrono::days>(point);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(point - day);
  const std::string iso = fmt::format(
      "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", static_cast<int>(date.year()),
      static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
      clock.minutes().count(), clock.seconds().count(), clock.subseconds().count());
  if (parse_time_us(iso) != time) fail("another time in ISO 8601", text + " is not " + iso);
}

}  // namespace serrate
