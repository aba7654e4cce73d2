#pragma once

#include <cstdint>

#include "serrate/sequence_model_options.h"

namespace serrate {

/// What SequenceEncoder and ItemHead will allocate on a rank, known before they do.

/// Bytes of all dense parameters; their gradients, two moments and decay take as many each.
std::int64_t parameter_bytes(const SequenceModelOptions& options);

/// For micro-batches of `num_tokens` tokens, forward and backward, with room to grow; in bf16 with
/// a copy of the blocks' weights.
std::int64_t activation_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                              std::int64_t num_negatives);

/// What kernels of a GPU allocate besides while they run: for the head's sums of weighted rows and
/// its copies of rounded ones or, if that is more, for the sums of the positions' gradients.
std::int64_t gpu_workspace_bytes(const SequenceModelOptions& options, std::int64_t num_tokens,
                                 std::int64_t num_negatives);

}  // namespace serrate
