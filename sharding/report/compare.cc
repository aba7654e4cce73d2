#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>

#include "serrate/error.h"
#include "serrate/planner_report.h"
#include "sharding/files/quantity.h"

namespace serrate {
namespace {

constexpr std::size_t kMostChanges = 20;  // shown one by one
constexpr int kNumTypes = 7;

std::int64_t most(const std::vector<std::int64_t>& bytes) {
  return *std::ranges::max_element(bytes);
}

std::int64_t sum(const std::vector<std::int64_t>& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0});
}

std::string describe_place(const TableReport& t) {
  if (t.type == ShardingType::kDataParallel || t.type == ShardingType::kRowWise ||
      t.ranks.size() > 4) {
    return fmt::format("{} {} {}", to_string(t.type), format_count(t.ranks.size(), "rank"),
                       to_string(t.kernel));
  }
  return fmt::format("{} rank {} {}", to_string(t.type), fmt::join(t.ranks, ","),
                     to_string(t.kernel));
}

class Comparison {
 public:
  Comparison(const NamedReport& a, const NamedReport& b) : a_(a), b_(b) {}

  std::string text() {
    const std::size_t width = std::max<std::size_t>({14, a_.name.size() + 2, b_.name.size() + 2});
    width_ = static_cast<int>(width);
    text_ +=
        fmt::format("{:<28}{:>{}}{:>{}}{:>12}\n", "", a_.name, width_, b_.name, width_, "change");
    const PlanReport &a = a_.report, &b = b_.report;
    add_ms("max rank ms", a.cost.max_rank, b.cost.max_rank);
    add_ms("critical path ms", a.cost.critical_path, b.cost.critical_path);
    if (a.bound_ms > 0 && b.bound_ms > 0) add_ms("bound ms", a.bound_ms, b.bound_ms);
    add_ms("imbalance", a.imbalance(), b.imbalance());
    add_bytes("HBM, fullest rank", most(a.cost.device_bytes), most(b.cost.device_bytes));
    add_bytes("HBM, all ranks", sum(a.cost.device_bytes), sum(b.cost.device_bytes));
    add_bytes("DDR, fullest rank", most(a.cost.host_bytes), most(b.cost.host_bytes));
    add_bytes("DDR, all ranks", sum(a.cost.host_bytes), sum(b.cost.host_bytes));
    add_phases();
    add_types();
    add_tables();
    return std::move(text_);
  }

 private:
  // b / a - 1 in percent; nothing without an a.
  static std::string change(double a, double b) {
    if (a <= 0) return "";
    const double percent = std::round(1000 * (b / a - 1)) / 10;
    return percent == 0 ? "same" : fmt::format("{:+.1f} %", percent);
  }
  void add_ms(const std::string& name, double a, double b) {
    text_ +=
        fmt::format("{:<28}{:>{}.4f}{:>{}.4f}{:>12}\n", name, a, width_, b, width_, change(a, b));
  }
  void add_bytes(const std::string& name, std::int64_t a, std::int64_t b) {
    if (a == 0 && b == 0) return;
    text_ +=
        fmt::format("{:<28}{:>{}}{:>{}}{:>12}\n", name, format_bytes(a), width_, format_bytes(b),
                    width_, change(static_cast<double>(a), static_cast<double>(b)));
  }

  // Phases by their names without sharding types, which the two may not share.
  static std::map<std::string, double> phases_of(const PlanReport& report) {
    std::map<std::string, double> ms;
    for (const PhaseReport& phase : report.phases) {
      std::string name = phase.name;
      for (int type = 0; type < kNumTypes; ++type) {
        const std::string prefix = to_string(static_cast<ShardingType>(type)) + " ";
        if (name.starts_with(prefix)) name.erase(0, prefix.size());
      }
      ms[name] += phase.slowest_ms();
    }
    return ms;
  }
  void add_phases() {
    const auto a = phases_of(a_.report), b = phases_of(b_.report);
    std::map<std::string, int> names;
    for (const auto& [name, ms] : a) names[name];
    for (const auto& [name, ms] : b) names[name];
    text_ += "\nslowest ranks of\n";
    for (const auto& [name, unused] : names) {
      add_ms("  " + name + " ms", a.contains(name) ? a.at(name) : 0,
             b.contains(name) ? b.at(name) : 0);
    }
  }

  void add_types() {
    const auto count = [](const PlanReport& report, ShardingType type) {
      return std::ranges::count(report.tables, type, &TableReport::type);
    };
    text_ += "\ntables\n";
    for (int type = 0; type < kNumTypes; ++type) {
      const auto a = count(a_.report, static_cast<ShardingType>(type));
      const auto b = count(b_.report, static_cast<ShardingType>(type));
      if (a == 0 && b == 0) continue;
      text_ += fmt::format("  {:<26}{:>{}}{:>{}}{:>+12}\n",
                           to_string(static_cast<ShardingType>(type)), a, width_, b, width_, b - a);
    }
  }

  struct Changed {
    const TableReport* a;
    const TableReport* b;
    double ms() const { return std::max(a->work_ms, b->work_ms); }
  };

  void add_tables() {
    std::map<std::string, const TableReport*> others;
    for (const TableReport& t : b_.report.tables) others[t.name] = &t;
    std::vector<Changed> changed;
    for (const TableReport& a : a_.report.tables) {
      const TableReport& b = *others.at(a.name);
      if (a.type != b.type || a.kernel != b.kernel || a.ranks != b.ranks)
        changed.push_back({&a, &b});
    }
    std::ranges::stable_sort(changed, std::ranges::greater(), &Changed::ms);
    text_ += fmt::format("\n{} of {} elsewhere{}\n", changed.size(),
                         format_count(a_.report.tables.size(), "table"),
                         changed.empty() ? "" : "; the most expensive:");
    for (std::size_t i = 0; i < std::min(kMostChanges, changed.size()); ++i) {
      const auto& [a, b] = changed[i];
      text_ += fmt::format("  {:<24} {:<34} {:>10.4f} rank-ms -> {:<34} {:>10.4f}\n", a->name,
                           describe_place(*a), a->work_ms, describe_place(*b), b->work_ms);
    }
  }

  const NamedReport& a_;
  const NamedReport& b_;
  int width_ = 0;
  std::string text_;
};

}  // namespace

std::string compare_text(const NamedReport& a, const NamedReport& b) {
  return Comparison(a, b).text();
}

}  // namespace serrate
