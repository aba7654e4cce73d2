#pragma once

#include "serrate/kernels/token_embedding.h"

namespace serrate {

/// The arguments' checks, for ops that make tokens within other work.
void check_token_embedding_forward(const TokenEmbeddingForward& args);

}  // namespace serrate
