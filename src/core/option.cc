#include "src/core/option.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "src/core/json.h"

namespace serrate {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongest = std::chrono::years(1);

struct Unit {
  std::string_view name;
  std::int64_t ms;
};
constexpr Unit kUnits[] = {{"h", 3'600'000}, {"min", 60'000}, {"s", 1000}, {"ms", 1}};

// What lines of name=value and JSON can both hold.
void check_text(const std::string& text) {
  if (!is_utf8(text) || text.find_first_of(std::string_view("\n\0", 2)) != std::string::npos) {
    throw usage_error("one line of UTF-8");
  }
}

template <typename T>
bool read_all(const std::string& text, T& value) {
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && rest == end;
}

}  // namespace

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  if (text.empty()) return parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

Option&& Option::with_letter(char short_name) && {
  letter = short_name;
  return std::move(*this);
}

Option&& Option::required() && {
  is_required = true;
  return std::move(*this);
}

// A list of files keeps the "A,B,.." of a list.
Option&& Option::input() && {
  if (kind == Kind::kText) takes = "FILE";
  file = File::kInput;
  return std::move(*this);
}

Option&& Option::output() && {
  takes = "FILE";
  file = File::kOutput;
  return std::move(*this);
}

Option&& Option::directory() && {
  takes = "DIR";
  return std::move(*this);
}

Option&& Option::not_stored() && {
  is_stored = false;
  return std::move(*this);
}

Option&& Option::newer() && {
  is_newer = true;
  return std::move(*this);
}

Option&& Option::must_match(OnResume when) && {
  on_resume = when;
  return std::move(*this);
}

Option make_option(const std::string& name, const std::string& takes, const std::string& help,
                   Option::Kind kind, std::function<std::string()> text,
                   std::function<void(const std::string&)> set) {
  return {.name = name,
          .takes = takes,
          .help = help,
          .kind = kind,
          .text = std::move(text),
          .set = [name, set = std::move(set)](const std::string& given) {
            try {
              set(given);
            } catch (const Error& can_be) {
              throw usage_error(fmt::format("--{} \"{}\" (takes {})", name, given, can_be.what()));
            }
          }};
}

Option option(const std::string& name, std::string& field, const std::string& help) {
  return option(name, field, help, "TEXT", check_text);
}

Option option(const std::string& name, std::string& field, const std::string& help,
              const std::string& takes, const std::function<void(const std::string&)>& check) {
  return make_option(
      name, takes, help, Option::Kind::kText, [&field] { return field; },
      [&field, check](const std::string& text) {
        check_text(text);
        if (!text.empty()) check(text);
        field = text;
      });
}

Option option(const std::string& name, std::vector<std::string>& field, const std::string& help) {
  return make_option(
      name, "A,B,..", help, Option::Kind::kTexts,
      [&field] { return fmt::format("{}", fmt::join(field, ",")); },
      [&field](const std::string& text) {
        check_text(text);
        std::vector<std::string> parts = split_list(text);
        if (std::ranges::count(parts, "") > 0) throw usage_error("A,B,.. without an empty part");
        field = std::move(parts);
      });
}

Option option(const std::string& name, std::vector<std::int64_t>& field, const std::string& help,
              WholeNumbers range) {
  return make_option(
      name, "N,N,..", help, Option::Kind::kNumbers,
      [&field] { return fmt::format("{}", fmt::join(field, ",")); },
      [&field, range](const std::string& text) {
        std::vector<std::int64_t> numbers;
        for (const std::string& part : split_list(text))
          numbers.push_back(whole_number(part, range));
        if (numbers.empty()) throw usage_error("whole numbers such as 5,10");
        field = std::move(numbers);
      });
}

Option option(const std::string& name, bool& field, const std::string& help) {
  return make_option(
      name, "", help, Option::Kind::kFlag, [&field] { return field ? "true" : "false"; },
      [&field](const std::string& text) {
        if (text != "true" && text != "false") throw usage_error("true or false");
        field = text == "true";
      });
}

Option option(const std::string& name, milliseconds& field, const std::string& help) {
  return make_option(
      name, "TIME", help, Option::Kind::kText, [&field] { return to_string(field); },
      [&field](const std::string& text) { field = milliseconds_from_string(text); });
}

Option option(const std::string& name, std::uint64_t& field, const std::string& help) {
  return make_option(
      name, "N", help, Option::Kind::kNumber, [&field] { return std::to_string(field); },
      [&field](const std::string& text) {
        std::uint64_t value = 0;
        if (!read_all(text, value)) throw usage_error("a whole number from 0 to 2^64 - 1");
        field = value;
      });
}

milliseconds milliseconds_from_string(const std::string& text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::int64_t count = 0;
  for (const Unit& unit : kUnits) {
    if (text.substr(digits) != unit.name || !read_all(text.substr(0, digits), count)) continue;
    if (count >= 1 && count <= kLongest.count() / unit.ms) return milliseconds(count * unit.ms);
  }
  throw usage_error("a time such as 500ms, 30s, 5min or 2h, up to a year");
}

std::string to_string(milliseconds time) {
  for (const Unit& unit : kUnits) {
    if (time.count() % unit.ms == 0) return fmt::format("{}{}", time.count() / unit.ms, unit.name);
  }
  return "";  // every time has a whole number of milliseconds
}

std::int64_t whole_number(const std::string& text, WholeNumbers range) {
  std::int64_t value = 0;
  if (!read_all(text, value) || value < range.least || value > range.most) {
    throw usage_error(range.most == WholeNumbers().most
                          ? fmt::format("a whole number from {}", range.least)
                          : fmt::format("a whole number from {} to {}", range.least, range.most));
  }
  return value;
}

double number(const std::string& text, Numbers range) {
  double value = 0;
  const bool left_out = range.at_least == Numbers::Least::kLeftOut;
  if (!read_all(text, value) || !(left_out ? value > range.least : value >= range.least) ||
      !(value < range.end)) {
    throw usage_error(
        fmt::format("a number {} {}{}", left_out ? "above" : "from", range.least,
                    std::isfinite(range.end) ? fmt::format(" and below {}", range.end) : ""));
  }
  return value;
}

std::string number_text(float value) {
  return fmt::format("{}", value);
}
std::string number_text(double value) {
  return fmt::format("{}", value);
}

}  // namespace serrate
