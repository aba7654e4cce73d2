#pragma once

#include <cstdint>
#include <limits>
#include <variant>

#include "serrate/buffer.h"
#include "serrate/device_span.h"
#include "serrate/stream.h"

namespace serrate {

// Which keys a query sees. Query i and key j are counted from the first of their sequence; a mask
// holds for every head. Arrays are device memory and not copied.

struct FullMask {};

/// Query i's own key: i, or the one that pairs the last query with the last key.
enum class MaskCorner { kTopLeft, kBottomRight };

inline constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max() / 4;

/// A sliding window: query i sees the keys [own - left, own + right].
struct WindowMask {
  std::int64_t left = kUnlimited, right = kUnlimited;
  MaskCorner corner = MaskCorner::kTopLeft;
};

inline constexpr WindowMask kCausalMask{.right = 0};

/// Causal, but every query sees the first prefix_lengths[s] keys of sequence s.
struct PrefixMask {
  DeviceSpan<const std::int64_t> prefix_lengths;  ///< [batch_size]
};

/// Packed documents that do not see one another; for self-attention. Document d is the tokens
/// [document_offsets[d], document_offsets[d + 1]), counted as query_offsets counts them; the
/// documents follow one another and cover all tokens. Within one, query i sees keys up to
/// i + right.
struct DocumentMask {
  DeviceSpan<const std::int64_t> document_offsets;
  std::int64_t right = 0;
};

/// HSTU's (Zhai et al., ICML'24; generative-recommenders and FBGEMM): self-attention over
/// num_contexts context tokens, a history, and the last num_targets[s] tokens, candidates that do
/// not see one another. Causal; contexts see contexts and the whole history; a candidate sees what
/// comes before the candidates, and of its own group itself and those before it.
struct HstuMask {
  std::int64_t num_contexts = 0;
  DeviceSpan<const std::int64_t> num_targets = {};  ///< [batch_size]; empty: no candidates
  std::int64_t target_group_size = 1;
  /// How far back a query looks, the contexts counting as one place; the last `full_length` places
  /// of the history and the candidates look back as far as there is.
  std::int64_t window = kUnlimited;
  std::int64_t full_length = 0;
};

/// Up to two ranges of keys that a query sees, in any order.
struct RowMask {
  DeviceSpan<const std::int64_t> ranges;  ///< [num_query_tokens, 2, 2]: begin, end
};

/// FlashMask (Wang et al., ICLR'25): up to two ranges of queries that do not see a key, "lower
/// triangle start, end, upper triangle start, end".
struct ColumnMask {
  DeviceSpan<const std::int64_t> ranges;  ///< [num_key_tokens, 2, 2]: begin, end
};

/// Any mask, a bit a score, with what is empty and what is full in blocks of 16 queries x 16 keys.
/// Rows are padded so that 16 bytes from any byte of a row can be read.
struct BitMaskView {
  std::int64_t num_queries = 0, num_keys = 0;
  DeviceMatrix<const std::uint8_t> bits;  ///< bit i % 8 of [key j, i / 8]: query i sees key j
  DeviceMatrix<const std::uint8_t> any;   ///< bit b % 8 of [c, b / 8]: block (b, c) is not empty
  DeviceMatrix<const std::uint8_t> all;   ///< ... is full
};

/// The bits of a mask and its blocks (Binary Block Masking: Sharma & Geiping 2024).
class BitMask {
 public:
  /// `visible`: [num_queries, num_keys], not 0 where the query sees the key.
  BitMask(DeviceMatrix<const std::uint8_t> visible, const Stream& stream);
  BitMaskView view() const { return view_; }
  /// The share of tiles of the given size that are not empty; rounded up to blocks of 16.
  double tile_density(std::int64_t tile, const Stream& stream) const;

 private:
  Buffer<std::uint8_t> storage_;
  BitMaskView view_;
};

/// Sequence s is masked by masks[s], or by the only one; as large as the sequence or larger. The
/// views are device memory, too.
struct BlockMask {
  DeviceSpan<const BitMaskView> masks;
};

using AttentionMask = std::variant<FullMask, WindowMask, PrefixMask, DocumentMask, HstuMask,
                                   RowMask, ColumnMask, BlockMask>;

}  // namespace serrate
