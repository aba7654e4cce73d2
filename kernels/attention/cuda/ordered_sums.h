#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention/view.h"
#include "serrate/buffer.h"

// Sums over rows of floats, in a fixed order: runs of consecutive rows first, then these.
namespace serrate {

/// sums[i] += rows[i] + rows[size + i] + ..., over rows as long as the sums, or none.
void add_rows(const Buffer<float>& rows, std::span<float> sums, const Stream& stream);

/// d_q of shared queries, from that of every sequence, [batch_size, num_shared_queries, num_heads,
/// head_dim].
void sum_shared_queries(const float* of_sequences, const AttentionBackwardView& call,
                        const Stream& stream);

}  // namespace serrate
