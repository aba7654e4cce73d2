#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "serrate/communicator.h"

namespace serrate {

/// What a rank tells the others when it has done a step, all of it in one host collective.
struct StepReport {
  std::span<const double> losses;       // of its shares, in order
  std::int64_t next_tokens = 0;         // of its batch for the next step
  std::span<const std::int64_t> words;  // flags and counts, to be summed; as many on all ranks
};

/// The same of all ranks.
struct StepTotals {
  double loss = 0;  // over the shares in their tree (tree_sum)
  std::int64_t next_tokens = 0;
  std::vector<std::int64_t> words;
};

StepTotals exchange_reports(const StepReport& report, Communicator& communicator);

}  // namespace serrate
