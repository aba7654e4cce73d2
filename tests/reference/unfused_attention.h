#pragma once

#include "serrate/kernels/attention.h"
#include "tests/reference/attention.h"

namespace serrate::reference {

/// x as it is stored.
float store(float x, DataType stored);

struct UnfusedAttention {
  AttentionOutput output;
  AttentionGradients gradients;
};

/// Attention and its backward as one op after the other, with float32 sums and every result stored:
/// the error of which is the measure of a fused kernel's in FlashAttention's tests (Dao et al.).
UnfusedAttention unfused_attention(const Attention& args, const std::vector<double>& d_out,
                                   DataType stored);

}  // namespace serrate::reference
