#include "src/train/step_report.h"

#include <bit>

#include "src/core/profiler_range.h"
#include "src/core/sum_tree.h"

namespace serrate {

// A message is [next_tokens] [words] [the bits of losses]: as many of the last as a rank has
// shares.
StepTotals exchange_reports(const StepReport& report, Communicator& communicator) {
  const ProfilerRange range("step report");
  std::vector<std::int64_t> message{report.next_tokens};
  message.insert(message.end(), report.words.begin(), report.words.end());
  for (const double loss : report.losses) message.push_back(std::bit_cast<std::int64_t>(loss));

  const auto all = communicator.gather<std::int64_t>("step report", message);
  StepTotals totals;
  totals.words.resize(report.words.size());
  std::vector<double> losses;
  std::span<const std::int64_t> rest = all.values;
  for (const std::int64_t count : all.counts) {
    std::span<const std::int64_t> from_rank = rest.first(count);
    rest = rest.subspan(count);
    totals.next_tokens += from_rank.front();
    from_rank = from_rank.subspan(1);
    for (std::int64_t& word : totals.words) {
      word += from_rank.front();
      from_rank = from_rank.subspan(1);
    }
    for (const std::int64_t bits : from_rank) losses.push_back(std::bit_cast<double>(bits));
  }
  totals.loss = tree_sum(losses);
  return totals;
}

}  // namespace serrate
