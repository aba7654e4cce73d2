#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "serrate/sequence_model_options.h"
#include "tests/reference/dense.h"

namespace serrate::reference {

/// The loss of a SASRec step by its definition (Kang & McAuley, ICDM'18), in double: whole dense
/// tables, one sequence after the other, no dropout, nothing sharded, fused or cut in parts.
struct Sasrec {
  struct Token {
    std::int64_t item;
    std::vector<std::int64_t> others;  // ids of the other feature, summed
    std::int64_t target;
  };

  SequenceModelOptions options;
  Matrix items, others;                      // [ids, dim]
  std::map<std::string, Matrix> parameters;  // named as the encoder's
  std::vector<std::vector<Token>> sequences;
  std::vector<std::int64_t> negatives;

  std::int64_t num_tokens() const;
  /// [tokens, dim]: what is scored against items (by the cosine with l2_normalize).
  Matrix hidden_states(const std::vector<Token>& sequence) const;
  /// The mean over all tokens of -log softmax(target among target and negatives); a negative that
  /// is a token's target is left out for that token.
  double loss() const;
};

}  // namespace serrate::reference
