#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "tests/kernels/attention/case.h"
#include "tests/reference/attention.h"

namespace serrate {

/// A mask of a batch, what it points to on a device, and its definition pair by pair.
struct TestMask {
  AttentionMask mask;
  reference::Visible visible;
  Buffer<std::int64_t> values = {};
  std::vector<BitMask> bits = {};
  Buffer<BitMaskView> views = {};
};

/// The lengths and offsets of a batch that a mask is made for.
struct MaskedBatch {
  std::vector<std::int64_t> query_lengths, key_lengths, query_offsets, key_offsets;
  bool is_self_attention() const { return query_lengths == key_lengths; }
};
inline MaskedBatch batch_of(const Shape& shape) {
  return {shape.query_lengths, shape.key_lengths, offsets_of(shape.query_lengths),
          offsets_of(shape.key_lengths)};
}

/// A case of a shape under a mask, which has to outlive its runs.
inline Case masked_case(Shape shape, const TestMask& mask, TestStreams& streams) {
  shape.mask = mask.mask;
  shape.visible = mask.visible;
  return {shape, streams};
}

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
/// "Full", as the names of tests have it.
std::string to_string(MaskKind kind);

TestMask random_mask(MaskKind kind, const MaskedBatch& batch, std::mt19937& generator,
                     const Stream& stream);

/// The same mask for these sequences of the batch, in this order. What has bits is to outlive it.
TestMask of_sequences(const TestMask& mask, const MaskedBatch& batch,
                      const std::vector<std::size_t>& sequences, const Stream& stream);

/// The same mask as bits.
TestMask as_bits(const TestMask& mask, const MaskedBatch& batch, const Stream& stream);

}  // namespace serrate
