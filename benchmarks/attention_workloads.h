#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/kernels/attention.h"

namespace serrate {

/// Up to two ranges of keys that a query sees; the second begins where the first ends or behind it.
struct KeyRanges {
  std::int64_t begin[2] = {0, 0}, end[2] = {0, 0};
};

enum class WorkloadMask {
  kFull,
  kCausal,
  kWindow,           ///< causal, so far back
  kPrefix,           ///< causal, and all see the first half
  kDocuments,        ///< causal, packed documents
  kFullDocuments,    ///< the same, not causal
  kPrefixDocuments,  ///< causal, and all of a document sees its first half
  kSharedQuestions,  ///< causal, documents of a question and three answers, which see it and
                     ///< themselves
  kBlockwise,        ///< causal, packed documents, of which the last sees all
  kGlobalWindow,     ///< causal, so far back, and the first keys
  kQkSparse,         ///< causal, but queries of some stretches see only what comes before these
  kRandomEviction,   ///< causal, but keys are forgotten: see forgotten_at()
  kLongFormer,       ///< so far both ways; the first queries see all, all see the first keys
};
std::string to_string(WorkloadMask mask);

/// One batch of attention, of those that papers measure (W1 to W10 in docs/performance_gpu.md).
struct AttentionWorkload {
  std::string name;  ///< "W6 lognormal 50": the workload, and which batch of it
  std::vector<std::int64_t> query_lengths, key_lengths;
  std::int64_t num_heads = 4, head_dim = 64;
  WorkloadMask mask = WorkloadMask::kCausal;
  std::int64_t window = 0, globals = 0;  ///< of the masks that have them
  AttentionActivation activation = AttentionActivation::kSoftmax;
  bool shares_queries = false;  ///< all sequences have the queries of the first
  bool has_backward = true;
  bool has_bit_mask = false;  ///< the mask is given as bits
  bool is_fp8 = false;        ///< in e4m3, forward

  std::int64_t num_queries() const;  ///< of all sequences
  std::int64_t num_keys() const;
  /// What query i of a sequence sees, unless it is forgotten.
  KeyRanges keys_of(std::int64_t i, std::int64_t num_keys) const;
  /// [num_keys]: queries from there on no longer see the key. Empty: they see all of keys_of().
  std::vector<std::int64_t> forgotten_at(std::int64_t num_keys) const;
};

/// Limits for a device that is not fast.
struct WorkloadLimits {
  std::int64_t sequences = std::int64_t{1} << 40, length = sequences;
};

/// The batches of workloads "W1,W6" or "all"; throws Error (usage) for any other name.
std::vector<AttentionWorkload> attention_workloads(const std::string& names,
                                                   const WorkloadLimits& limits);

/// Pairs of a query and a key of one head: those that the mask shows, and those in tiles of 64 x 64
/// with such a pair, the last of a sequence rounded up to multiples of 16.
struct PairCounts {
  double visible = 0, in_tiles = 0;
};
PairCounts count_pairs(const AttentionWorkload& workload);

}  // namespace serrate
