#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "serrate/kernels/attention.h"
#include "tests/reference/attention.h"

namespace serrate {

/// A mask of a batch, what it points to, and its definition pair by pair.
struct TestMask {
  AttentionMask mask;
  reference::Visible visible;
  std::vector<std::int64_t> values = {};
  std::vector<BitMask> bits = {};
  std::vector<BitMaskView> views = {};
};

/// The lengths and offsets of a batch that a mask is made for.
struct MaskedBatch {
  std::vector<std::int64_t> query_lengths, key_lengths, query_offsets, key_offsets;
  bool is_self_attention() const { return query_lengths == key_lengths; }
};

enum class MaskKind {
  kFull,
  kCausal,
  kCausalBottomRight,
  kWindow,
  kPrefix,
  kRows,
  kColumns,
  kBlocks,
  kSharedBlocks,
  kDocuments,  // from here on for self-attention
  kHstu,
};

TestMask random_mask(MaskKind kind, const MaskedBatch& batch, std::mt19937& generator);

/// The same mask as bits.
TestMask as_bits(const TestMask& mask, const MaskedBatch& batch);

}  // namespace serrate
