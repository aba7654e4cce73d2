#pragma once

#include "tests/reference/attention.h"

namespace serrate::reference {

/// What every tensor is stored as, those in between too.
enum class Stored { kFloat32, kBFloat16 };

struct UnfusedAttention {
  AttentionOutput output;
  AttentionGradients gradients;
};

/// Attention and its backward as one op after the other, with float32 sums and every result stored:
/// the error of which is the measure of a fused kernel's in FlashAttention's tests (Dao et al.).
UnfusedAttention unfused_attention(const Attention& args, const std::vector<double>& d_out,
                                   Stored stored);

}  // namespace serrate::reference
