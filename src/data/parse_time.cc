#include "src/data/parse_time.h"

#include <charconv>
#include <chrono>
#include <cmath>

namespace serrate {
namespace {

constexpr std::int64_t kMicroseconds = 1'000'000;
constexpr double kLargestSeconds = 6e12;

/// Takes numbers and marks from the front of a text; remembers when something was missing.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  /// Exactly `digits` decimal digits.
  int number(std::size_t digits) {
    int value = 0;
    for (std::size_t i = 0; i < digits; ++i) value = 10 * value + digit();
    return value;
  }
  int digit() {
    if (!has_digit()) {
      good_ = false;
      return 0;
    }
    const int value = rest_.front() - '0';
    rest_.remove_prefix(1);
    return value;
  }
  bool has_digit() const { return !rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9'; }
  bool skip(char mark) {
    const bool found = rest_.starts_with(mark);
    if (found) rest_.remove_prefix(1);
    return found;
  }
  void expect(char mark) { good_ &= skip(mark); }
  void expect(bool holds) { good_ &= holds; }
  bool done() const { return good_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool good_ = true;
};

std::optional<std::int64_t> parse_seconds(std::string_view text) {
  const char* begin = text.data();
  const char* end = begin + text.size();
  std::int64_t whole = 0;
  if (const auto result = std::from_chars(begin, end, whole);
      result.ec == std::errc() && result.ptr == end) {
    if (std::abs(static_cast<double>(whole)) > kLargestSeconds) return std::nullopt;
    return whole * kMicroseconds;
  }
  double seconds = 0;
  const auto result = std::from_chars(begin, end, seconds);
  if (result.ec != std::errc() || result.ptr != end || !(std::abs(seconds) <= kLargestSeconds)) {
    return std::nullopt;
  }
  return std::llround(seconds * kMicroseconds);
}

std::int64_t clock_us(Scanner& scanner) {
  const int hours = scanner.number(2);
  scanner.expect(':');
  const int minutes = scanner.number(2);
  const int seconds = scanner.skip(':') ? scanner.number(2) : 0;
  scanner.expect(hours < 24 && minutes < 60 && seconds < 60);
  std::int64_t fraction = 0;
  if (scanner.skip('.')) {
    scanner.expect(scanner.has_digit());
    for (std::int64_t unit = kMicroseconds / 10; scanner.has_digit(); unit /= 10) {
      fraction += unit * scanner.digit();
    }
  }
  return ((hours * 60 + minutes) * 60 + seconds) * kMicroseconds + fraction;
}

std::int64_t zone_us(Scanner& scanner) {
  if (scanner.skip('Z')) return 0;
  const bool west = scanner.skip('-');
  if (!west && !scanner.skip('+')) return 0;
  const int hours = scanner.number(2);
  scanner.skip(':');
  const int minutes = scanner.number(2);
  scanner.expect(hours < 24 && minutes < 60);
  return (hours * 60 + minutes) * 60 * kMicroseconds * (west ? -1 : 1);
}

std::optional<std::int64_t> parse_iso(std::string_view text) {
  Scanner scanner(text);
  const int year = scanner.number(4);
  scanner.expect('-');
  const int month = scanner.number(2);
  scanner.expect('-');
  const int day = scanner.number(2);
  const std::chrono::year_month_day date{std::chrono::year(year),
                                         std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day))};
  scanner.expect(date.ok());
  std::int64_t time = 0;
  if (scanner.skip('T') || scanner.skip(' ')) {
    time = clock_us(scanner);
    time -= zone_us(scanner);
  }
  if (!scanner.done()) return std::nullopt;
  const auto days = std::chrono::sys_days(date).time_since_epoch().count();
  return std::int64_t{days} * 86'400 * kMicroseconds + time;
}

}  // namespace

std::optional<std::int64_t> parse_time_us(std::string_view text) {
  const auto seconds = parse_seconds(text);
  return seconds ? seconds : parse_iso(text);
}

}  // namespace serrate
