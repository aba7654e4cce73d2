#pragma once

#include "kernels/attention/cpu/plan.h"
#include "kernels/attention/view.h"

namespace serrate {

// What the values of arrays tell: each throws Error if a call does not hold together.

/// Offsets, and what the mask asks of them.
void check_lengths(const AttentionView& args);
/// Tokens, and whatever has an entry for each.
void check_tokens(const AttentionView& args, const CpuAttentionPlan& plan);
void check_tokens(const AttentionBackwardView& args, const CpuAttentionPlan& plan);

}  // namespace serrate
