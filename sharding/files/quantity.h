#pragma once

#include <cstdint>
#include <string>

namespace serrate {

/// That a model, a topology or a question may name.
constexpr int kMostPlannedRanks = 1 << 20;

/// A number and a unit, as people write them in a topology file or an option; each throws Error
/// (usage) that says what it takes.

/// Bytes of "80GiB", "1.5 TiB", "512MB" or "4096".
std::int64_t bytes_from_string(const std::string& text);
/// Bytes per second that a bandwidth may be, so that times stay finite.
constexpr double kLeastBandwidth = 1;
constexpr double kMostBandwidth = 1e18;
/// Bytes per ms of "897GiB/s" or "12.5 GB/s".
double bandwidth_from_string(const std::string& text);
/// ms of "20us", "1.5ms" or "800ns".
double latency_from_string(const std::string& text);

/// "79.1 GiB": for people.
std::string format_bytes(std::int64_t bytes);
/// "1 rank", "16 ranks": for people.
std::string format_count(std::int64_t count, const char* of);

}  // namespace serrate
