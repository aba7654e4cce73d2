#include "sharding/files/quantity.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>
#include <span>
#include <string_view>

#include "serrate/error.h"

namespace serrate {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr double kKibi = 1024, kMebi = kKibi * 1024, kGibi = kMebi * 1024, kTebi = kGibi * 1024;
constexpr Unit kBytes[] = {{"", 1},        {"B", 1},       {"KiB", kKibi}, {"MiB", kMebi},
                           {"GiB", kGibi}, {"TiB", kTebi}, {"kB", 1e3},    {"MB", 1e6},
                           {"GB", 1e9},    {"TB", 1e12}};
constexpr Unit kPerSecond[] = {{"B/s", 1},       {"KiB/s", kKibi}, {"MiB/s", kMebi},
                               {"GiB/s", kGibi}, {"TiB/s", kTebi}, {"kB/s", 1e3},
                               {"MB/s", 1e6},    {"GB/s", 1e9},    {"TB/s", 1e12}};
constexpr Unit kMilliseconds[] = {{"ns", 1e-6}, {"us", 1e-3}, {"ms", 1}, {"s", 1e3}};

// Nothing unless it is a number that is not negative, maybe spaces, and one of the units.
std::optional<double> read_quantity(const std::string& text, std::span<const Unit> units) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || !std::isfinite(number) || std::signbit(number)) return std::nullopt;
  std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  for (const Unit& known : units) {
    const double amount = number * known.factor;
    if (unit == known.name && std::isfinite(amount)) return amount;
  }
  return std::nullopt;
}

}  // namespace

std::int64_t bytes_from_string(const std::string& text) {
  constexpr double kMost = 1e18;
  const auto bytes = read_quantity(text, kBytes);
  if (!bytes || *bytes > kMost) {
    throw usage_error(
        fmt::format("\"{}\" is not an amount of memory (such as 80GiB or 512MB)", text));
  }
  return std::llround(*bytes);
}

double bandwidth_from_string(const std::string& text) {
  const auto bytes = read_quantity(text, kPerSecond);
  if (!bytes || *bytes < kLeastBandwidth || *bytes > kMostBandwidth) {
    throw usage_error(
        fmt::format("\"{}\" is not a bandwidth (such as 897GiB/s or 12.5GB/s)", text));
  }
  return *bytes / 1e3;
}

double latency_from_string(const std::string& text) {
  constexpr double kMost = 1e6;
  const auto ms = read_quantity(text, kMilliseconds);
  if (!ms || *ms > kMost) {
    throw usage_error(fmt::format("\"{}\" is not a latency (such as 20us or 1.5ms)", text));
  }
  return *ms;
}

std::string format_bytes(std::int64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (std::abs(bytes) < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; std::abs(value) >= 999.95 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, std::abs(value) < 99.95 ? 2 : 1, kUnits[unit]);
}

std::string format_count(std::int64_t count, const char* of) {
  return fmt::format("{} {}{}", count, of, count == 1 ? "" : "s");
}

}  // namespace serrate
