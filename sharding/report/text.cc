#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>

#include "serrate/planner_report.h"
#include "sharding/files/quantity.h"

namespace serrate {
namespace {

constexpr std::size_t kShownRanks = 32;  // shown one by one
constexpr std::size_t kWorstRanks = 8;   // shown of more
constexpr std::size_t kMostTables = 20;  // shown one by one
constexpr std::array kShort{"DP", "TW", "RW", "CW", "TWRW", "TWCW", "GRID"};

double percent(double part, double whole) {
  return whole > 0 ? 100 * part / whole : 0;
}

// "0-7", "3, 5, 9", "all", "12 ranks".
std::string describe_ranks(const std::vector<int>& ranks, int world_size) {
  if (std::ssize(ranks) == world_size) return "all";
  if (ranks.size() > 2 && ranks.back() - ranks.front() + 1 == std::ssize(ranks)) {
    return fmt::format("{}-{}", ranks.front(), ranks.back());
  }
  if (ranks.size() > 4) return fmt::format("{} ranks", ranks.size());
  return fmt::format("{}", fmt::join(ranks, ","));
}

class Summary {
 public:
  explicit Summary(const PlanReport& report) : r_(report) {}

  std::string text() {
    add_objective();
    add_phases();
    add_types();
    add_ranks();
    add_tables();
    return std::move(text_);
  }

 private:
  template <typename... Arguments>
  void print(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    text_ += fmt::format(format, std::forward<Arguments>(arguments)...);
  }
  bool has_devices() const { return r_.device == PlannerDevice::kCuda; }

  void add_objective() {
    print("{} on {}, {} a node; {} a rank and step\n", format_count(r_.tables.size(), "table"),
          format_count(r_.world_size, "rank"), r_.ranks_per_node,
          format_count(r_.batch_size, "sample"));
    print("made for {}, judged by {}'s cost model\n\n", to_string(r_.objective),
          r_.estimator == PlannerEstimator::kTorchRec ? "TorchRec" : "serrate");
    const auto line = [&](const char* name, PlannerObjective objective, double ms) {
      print("{:<16}{:>12.4f} ms", name, ms);
      if (objective == r_.objective && r_.bound_ms > 0) {
        print("   no plan is below {:.4f} ms: gap {:.2f} %", r_.bound_ms, 100 * r_.gap());
      }
      print("\n");
    };
    line("max rank", PlannerObjective::kMaxRank, r_.cost.max_rank);
    line("critical path", PlannerObjective::kCriticalPath, r_.cost.critical_path);
    print("{:<16}{:>12.4f}      slowest rank / mean of all ranks\n", "imbalance", r_.imbalance());
  }

  void add_phases() {
    print("\n{:<36}{:>12}{:>8}{:>12}\n", "phase (critical path)", "slowest ms", "rank", "mean ms");
    for (const PhaseReport& phase : r_.phases) {
      const double sum = std::accumulate(phase.ms.begin(), phase.ms.end(), 0.0);
      print("{:<36}{:>12.4f}{:>8}{:>12.4f}\n", phase.name, phase.slowest_ms(), phase.slowest_rank,
            sum / r_.world_size);
    }
  }

  void add_types() {
    print("\n{:<20}{:>8}{:>10}{:>10}{:>12}{:>12}\n", "sharding type", "tables", "shards", "time",
          has_devices() ? "HBM" : "", "DDR");
    const double all = total_work();
    for (int type = 0; type < static_cast<int>(kShort.size()); ++type) {
      std::int64_t tables = 0, shards = 0, device = 0, host = 0;
      double work = 0;
      for (const TableReport& t : r_.tables) {
        if (static_cast<int>(t.type) != type) continue;
        ++tables;
        shards += t.num_shards;
        work += t.work_ms;
        device += t.device_bytes;
        host += t.host_bytes;
      }
      if (tables == 0) continue;
      print("{:<20}{:>8}{:>10}{:>8.1f} %{:>12}{:>12}\n", to_string(static_cast<ShardingType>(type)),
            tables, shards, percent(work, all), has_devices() ? format_bytes(device) : "",
            format_bytes(host));
    }
  }

  double total_work() const {
    double all = 0;
    for (const TableReport& t : r_.tables) all += t.work_ms;
    return all;
  }

  // ms of a rank in all phases whose name ends like that.
  double phase_ms(int rank, std::string_view name) const {
    double ms = 0;
    for (const PhaseReport& phase : r_.phases) {
      if (phase.name.ends_with(name)) ms += phase.ms[rank];
    }
    return ms;
  }

  void add_rank_header(const char* title) {
    print("\n{:<8}{:>10}{:>10}{:>10}{:>10}{:>10}", title, "ms", "fwd comp", "bwd comp", "fwd comm",
          "bwd comm");
    if (has_devices()) print("{:>12}{:>7}", "HBM", "used");
    print("{:>12}{:>7}  {}\n", "DDR", "used", "shards");
  }

  void add_memory(std::int64_t bytes, std::int64_t usable) {
    print("{:>12}{:>5.0f} %", format_bytes(bytes),
          percent(static_cast<double>(bytes), static_cast<double>(usable)));
  }

  void add_rank(int rank) {
    print("{:<8}{:>10.4f}{:>10.4f}{:>10.4f}{:>10.4f}{:>10.4f}", rank, r_.rank_ms[rank],
          phase_ms(rank, "forward compute"), phase_ms(rank, "backward compute"),
          phase_ms(rank, "forward exchange"), phase_ms(rank, "backward exchange"));
    if (has_devices()) add_memory(r_.cost.device_bytes[rank], r_.usable.device_bytes[rank]);
    add_memory(r_.cost.host_bytes[rank], r_.usable.host_bytes[rank]);
    print(" ");
    for (std::size_t type = 0; type < kShort.size(); ++type) {
      if (r_.shards[rank][type] > 0) print(" {} {}", r_.shards[rank][type], kShort[type]);
    }
    print("\n");
  }

  // The ranks with the most of something, in order of rank.
  template <typename Value>
  std::vector<int> worst_ranks(const Value& value) const {
    std::vector<int> ranks(r_.world_size);
    std::iota(ranks.begin(), ranks.end(), 0);
    std::ranges::stable_sort(ranks, std::ranges::greater(), value);
    ranks.resize(std::min(kWorstRanks, ranks.size()));
    std::ranges::sort(ranks);
    return ranks;
  }

  void add_ranks() {
    if (r_.rank_ms.size() <= kShownRanks) {
      add_rank_header("rank");
      for (int rank = 0; rank < r_.world_size; ++rank) add_rank(rank);
      return;
    }
    add_quantiles();
    add_rank_header("slowest");
    for (const int rank : worst_ranks([&](int x) { return r_.rank_ms[x]; })) add_rank(rank);
    const auto& used = has_devices() ? r_.cost.device_bytes : r_.cost.host_bytes;
    add_rank_header("fullest");
    for (const int rank : worst_ranks([&](int x) { return used[x]; })) add_rank(rank);
  }

  void add_quantiles() {
    print("\n{:<12}{:>12}{:>12}{:>12}{:>12}{:>12}\n", "ranks", "least", "p10", "median", "p90",
          "most");
    const auto line = [&](const char* name, auto values, const auto& format) {
      std::ranges::sort(values);
      print("{:<12}", name);
      for (const double part : {0.0, 0.1, 0.5, 0.9, 1.0}) {
        const auto at = static_cast<std::size_t>(part * static_cast<double>(values.size() - 1));
        print("{:>12}", format(values[at]));
      }
      print("\n");
    };
    line("ms", r_.rank_ms, [](double ms) { return fmt::format("{:.4f}", ms); });
    if (has_devices()) line("HBM", r_.cost.device_bytes, format_bytes);
    line("DDR", r_.cost.host_bytes, format_bytes);
  }

  // Columns that hold the names of the tables shown.
  static int name_width(const std::vector<const TableReport*>& order) {
    std::size_t longest = 5;
    for (std::size_t i = 0; i < std::min(kMostTables, order.size()); ++i) {
      longest = std::max(longest, order[i]->name.size());
    }
    return static_cast<int>(longest) + 2;
  }

  void add_tables() {
    std::vector<const TableReport*> order;
    for (const TableReport& t : r_.tables) order.push_back(&t);
    std::ranges::stable_sort(order, std::ranges::greater(), &TableReport::work_ms);
    const double all = total_work();
    const int width = name_width(order);
    print("\n{:<{}}{:<20}{:<18}{:>12}{:>12}{:>8}{:>12}{:>12}\n", "table", width, "sharding type",
          "kernel", "ranks", "rank-ms", "time", has_devices() ? "HBM" : "", "DDR");
    for (std::size_t i = 0; i < std::min(kMostTables, order.size()); ++i) {
      const TableReport& t = *order[i];
      print("{:<{}}{:<20}{:<18}{:>12}{:>12.4f}{:>6.1f} %{:>12}{:>12}\n", t.name, width,
            to_string(t.type), to_string(t.kernel), describe_ranks(t.ranks, r_.world_size),
            t.work_ms, percent(t.work_ms, all), has_devices() ? format_bytes(t.device_bytes) : "",
            format_bytes(t.host_bytes));
    }
    if (order.size() <= kMostTables) return;
    double rest = 0;
    for (std::size_t i = kMostTables; i < order.size(); ++i) rest += order[i]->work_ms;
    print("and {} more, {:.1f} % of the time\n", format_count(order.size() - kMostTables, "table"),
          percent(rest, all));
  }

  const PlanReport& r_;
  std::string text_;
};

}  // namespace

std::string to_text(const PlanReport& report) {
  return Summary(report).text();
}

std::string to_text(const TableExplanation& e) {
  std::string text = fmt::format(
      "table {}: every way to shard it, the other tables staying where "
      "they are ({} {:.4f} ms)\n",
      e.table, to_string(e.objective), e.objective_ms);
  if (!e.group.empty()) {
    text += fmt::format("together with {}, of the same group\n", fmt::join(e.group, ", "));
  }
  text += fmt::format("\n{:<20}{:<18}{:>8}{:>12}{:>12}{:>12}{:>12}  {}\n", "sharding type",
                      "kernel", "shards", "shard ms", "rank-ms", "HBM/rank", "DDR/rank", "");
  for (const OptionReport& o : e.options) {
    text += fmt::format("{:<20}{:<18}", to_string(o.type), to_string(o.kernel));
    text += o.possible
                ? fmt::format("{:>8}{:>12.4f}{:>12.4f}{:>12}{:>12}", o.num_shards, o.shard_ms,
                              o.work_ms, format_bytes(o.device_bytes), format_bytes(o.host_bytes))
                : fmt::format("{:>8}{:>12}{:>12}{:>12}{:>12}", "-", "-", "-", "-", "-");
    text += fmt::format("  {}\n", o.why);
  }
  return text;
}

}  // namespace serrate
