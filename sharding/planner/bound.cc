#include "sharding/planner/bound.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <queue>
#include <ranges>
#include <utility>

#include "sharding/planner/relaxation.h"

namespace serrate {
namespace {

// Cuts a box in two where a phase of the relaxed solution has shards that are longer than its
// slowest rank takes; or where the slowest rank may take the most beyond that. False when no phase
// may by much.
bool cut(const Box& box, Box& below, Box& above) {
  int phase = -1;
  double most = 1e-3 * box.value;
  for (int k = 0; k < kPhases; ++k) {
    if (box.longest[k] - box.slowest[k] > most) {
      most = box.longest[k] - box.slowest[k];
      phase = k;
    }
  }
  if (phase < 0 && !box.torn_much.empty()) {
    below = above = box;
    for (const std::size_t d : box.torn_much) below.allowed[d] = false;
    for (const std::size_t d : box.torn_little) above.allowed[d] = false;
    return true;
  }
  double at = phase < 0 ? 0 : box.slowest[phase] + most / 2;
  if (phase < 0) {
    for (int k = 0; k < kPhases; ++k) {
      if (box.high[k] < kUnbounded && box.high[k] - box.slowest[k] > most) {
        most = box.high[k] - box.slowest[k];
        phase = k;
      }
    }
    if (phase < 0) return false;
    at = box.slowest[phase] + 0.4 * most;
  }
  below = above = box;
  below.high[phase] = above.low[phase] = at;
  return true;
}

// Lowers the highs to what is left of `known` beside `uniform`. False when there is nothing left.
bool tighten(Box& box, double known, double uniform) {
  const double low = std::accumulate(box.low.begin(), box.low.end(), uniform);
  for (int k = 0; k < kPhases; ++k) {
    box.high[k] = std::min(box.high[k], known - (low - box.low[k]));
    if (box.high[k] < box.low[k]) return false;
  }
  return true;
}

constexpr double kCloseEnough = 0.998;
// Many demands mean many shards, which come apart better and take long to look through.
constexpr std::size_t kMostToCut = 1500;

// The cases in which a placement may yet be below `goal`. Those that are proved not to be are done
// with.
class Cases {
 public:
  Cases(const Relaxation& relaxation, double goal)
      : relaxation_(relaxation), goal_(goal), few_(relaxation.num_demands() <= kMostToCut) {
    add(relaxation.whole(), few_ ? 4 : 0);
  }

  // No placement is below it; `goal` at most.
  double bound() const { return (open_.empty() ? goal_ : open_.top().value) * (1 - kBoundSlack); }

  // Tells so many cases apart at most, the one with the least bound first. visit(box) sees them.
  void split(int most_boxes, int& boxes_left) {
    split(most_boxes, boxes_left, [](const Box&) {});
  }
  template <typename Visit>
  void split(int most_boxes, int& boxes_left, const Visit& visit) {
    const int stop_at = boxes_left - most_boxes;
    for (; boxes_left > stop_at && !open_.empty(); boxes_left -= 2) {
      if (open_.top().value > kCloseEnough * goal_) break;
      visit(open_.top());
      Box below, above;
      if (!cut(open_.top(), below, above)) break;
      open_.pop();
      add(std::move(below), few_ ? 1 : 0);
      add(std::move(above), few_ ? 1 : 0);
    }
  }

 private:
  void add(Box box, int cuttings) {
    constexpr int kRounds = 30;
    if (!tighten(box, goal_, relaxation_.least_uniform(box) * (1 - kBoundSlack))) return;
    relaxation_.solve(box, goal_, kRounds, cuttings);
    if (box.value < goal_) open_.push(std::move(box));
  }

  const Relaxation& relaxation_;
  double goal_;  // ms
  bool few_;
  std::priority_queue<Box> open_;
};

}  // namespace

PlannerBound planner_bound(const PlannerProblem& problem, PlannerObjective objective) {
  constexpr int kRounds = 100;
  const Relaxation relaxation(problem, objective, Relaxation::Nodes::kTogether);
  Box box = relaxation.whole();
  relaxation.solve(box, kUnbounded, kRounds, 0);
  const auto price = [&](int load, const std::vector<std::int64_t>& bytes) {
    return relaxation.price(box, load) * relaxation.scale() / std::max(sum_of(bytes), 1.0);
  };
  return {.objective = box.value * (1 - kBoundSlack),
          .device_price = price(kPhases, problem.device_bytes),
          .host_price = price(kPhases + 1, problem.host_bytes)};
}

Allowed candidates_below(const PlannerProblem& problem, const PlannerBound& bound, double known) {
  // The mean over ranks, summed over phases, is no longer than the slowest ranks take.
  const auto cost_of = [&](const Candidate& c) {
    return c.everywhere.total(problem.estimator) +
           c.work.total(problem.estimator) / problem.world_size +
           bound.device_price * static_cast<double>(c.total_device_bytes()) +
           bound.host_price * static_cast<double>(c.total_host_bytes());
  };
  double sum = -bound.device_price * sum_of(problem.device_bytes) -
               bound.host_price * sum_of(problem.host_bytes);
  std::vector<double> least;
  for (const PlannerItem& item : problem.items) {
    least.push_back(std::ranges::min(item.candidates | std::views::transform(cost_of)));
    sum += least.back();
  }
  const double most = known * (1 + kBoundSlack);
  Allowed allowed;
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    auto& of_item = allowed.emplace_back();
    for (const Candidate& c : problem.items[i].candidates) {
      const double longest =
          c.everywhere.total(problem.estimator) + c.time.total(problem.estimator);
      of_item.push_back(longest <= most && sum - least[i] + cost_of(c) <= most);
    }
  }
  return allowed;
}

std::vector<std::vector<ItemChoice>> relaxed_choices(const PlannerProblem& problem,
                                                     PlannerObjective objective, double known,
                                                     std::size_t most, int most_cases) {
  const Relaxation relaxation(problem, objective, Relaxation::Nodes::kApartIfFew);
  constexpr int kMostDemands = 60'000;  // of all cases
  most_cases = std::min(most_cases, kMostDemands / static_cast<int>(relaxation.num_demands() + 1));
  std::vector<std::vector<ItemChoice>> found;
  Cases cases(relaxation, known);
  cases.split(most_cases, most_cases, [&](const Box& box) {
    std::vector<ItemChoice> choices;
    for (const std::size_t i : box.rounded) {
      const Demand& d = relaxation.demand(i);
      ItemChoice& choice = choices.emplace_back(d.candidate);
      for (int g = 0; g < relaxation.num_groups() && relaxation.num_groups() > 1; ++g) {
        choice.nodes.insert(choice.nodes.end(), d.blocks[g], g);
      }
    }
    if (std::ranges::find(found, choices) == found.end()) found.push_back(std::move(choices));
  });
  const auto left_out =
      std::max(std::ssize(found) - static_cast<std::ptrdiff_t>(most), std::ptrdiff_t{0});
  found.erase(found.begin(), found.begin() + left_out);
  return found;
}

namespace {

// The part of `known` to be proved first. As far as it counts as proved, it is a gap of 2 %.
constexpr double kFirstGoal = 0.9825;

bool is_proved(double part, double known, double proved) {
  return proved >= kCloseEnough * part * known;
}

double raise_by_cases(const Relaxation& relaxation, const PlannerBound& bound, double known) {
  // For all boxes, each of which has 30 rounds or more. Where memory has a price, or nodes are told
  // apart, there are more cases.
  const bool is_priced = bound.device_price > 0 || bound.host_price > 0;
  const bool is_apart = relaxation.num_groups() > 1;
  const double most_demands = is_apart ? 900'000 : is_priced ? 93'000 : 47'000;
  const int most_boxes = is_apart ? 2'400 : 800;
  const double num_demands = static_cast<double>(relaxation.num_demands() + 1);
  int boxes_left = std::clamp(static_cast<int>(most_demands / num_demands), 32, most_boxes);
  double proved = bound.objective;
  std::optional<Cases> failed;  // of the least goal that was tried and is not proved
  const auto prove = [&](double part, double part_of_left) {
    if (is_proved(part, known, proved)) return;
    Cases cases(relaxation, part * known);
    cases.split(static_cast<int>(part_of_left * boxes_left), boxes_left);
    proved = std::max(proved, cases.bound());
    if (!is_proved(part, known, proved)) failed.emplace(std::move(cases));
  };
  // A goal is proved by fewer cases than it takes to find the least of all of them.
  prove(kFirstGoal, 0.6);
  if (is_proved(kFirstGoal, known, proved)) {
    prove(0.99, 0.7);
    if (is_proved(0.99, known, proved)) prove(1, 1);
  } else {
    for (const double part : {0.965, 0.95, 0.92}) prove(part, part > 0.92 ? 0.5 : 1);
  }
  if (failed) {
    failed->split(boxes_left, boxes_left);
    proved = std::max(proved, failed->bound());
  }
  return proved;
}

}  // namespace

double raise_bound(const PlannerProblem& problem, PlannerObjective objective,
                   const PlannerBound& bound, double known) {
  using enum PlannerObjective;
  const double proved =
      raise_by_cases(Relaxation(problem, objective, Relaxation::Nodes::kApartIfFew), bound, known);
  if (objective == kMaxRank || is_proved(kFirstGoal, known, proved)) return proved;
  // No rank takes longer than the critical path. Where shards are indivisible, splitting max_rank's
  // single phase sometimes proves more than splitting the three phases as often.
  const Relaxation of_rank(problem, kMaxRank, Relaxation::Nodes::kTogether);
  if (of_rank.num_demands() > kMostToCut) return proved;
  return raise_by_cases(of_rank, {proved, bound.device_price, bound.host_price}, known);
}

}  // namespace serrate
