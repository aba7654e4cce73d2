#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/cuda/work_list.h"
#include "kernels/attention/view.h"
#include "serrate/stream.h"

// Decoding: few queries over a long history (Flash-Decoding: Dao et al. 2023). The heads that share
// keys are rows of one tile, so that these are read once, and the keys are cut into chunks. What a
// chunk leaves is added to what those before it left, in their order, and the bits do not depend on
// who does it: a block that takes all chunks, or blocks that take one each and a kernel that
// combines them. So the device cuts what keeps too few blocks busy, as far as there is workspace.
namespace serrate {

/// Rows of a sequence that decodes, at most, in the plain kernels: its queries, in all heads that
/// share keys.
constexpr std::int64_t most_few_rows(std::int64_t head_dim) {
  return head_dim <= 128 ? 64 : 16;
}
/// Rows of one task on tensor cores.
inline constexpr std::int64_t kTaskRows = 64;
/// Rows of a sequence that decodes, at most, on tensor cores: candidates that rank against one
/// history, in several tasks.
constexpr std::int64_t most_candidate_rows(std::int64_t head_dim) {
  return head_dim <= 128 ? 8 * kTaskRows : most_few_rows(head_dim);
}
/// With fewer keys, or more queries, a block takes a tile of queries as of any sequence.
inline constexpr std::int64_t kLeastDecodedKeys = 257;

/// How a sequence is cut, a function of its own lengths and the call's options alone.
struct DecodingSplit {
  std::int64_t rows;  // 0: it does not decode
  std::int64_t chunk_keys, num_chunks;
};

/// Chunks of a sequence, enough for a few hundred blocks over all heads.
constexpr std::int64_t most_chunks(const AttentionView& args) {
  return std::clamp<std::int64_t>(256 / args.num_key_heads, 8, 128);
}

constexpr DecodingSplit decoding_split(const AttentionView& args, std::int64_t sequence) {
  constexpr std::int64_t kLeastTiles = 4, kKeysARow = 48, kManyTiles = 16;
  const std::int64_t rows = queries_of(args, sequence).count * heads_per_key_head(args);
  const std::int64_t keys = num_keys_of(args, sequence);
  if (rows == 0 || rows > args.most_decoding_rows || keys < kLeastDecodedKeys) return {};
  // Self-attention has as many rows as keys, or more: none decodes (may_decode).
  static_assert(most_candidate_rows(128) <= kManyTiles * kMmaTile);
  // What a row leaves of a chunk is written and read in float32: a 24th of the bytes of as many
  // keys and values in bfloat16, or of many rows a fifth of the time of their products.
  const std::int64_t tiles = ceil_div(keys, kMmaTile);
  const std::int64_t least =
      std::max(std::clamp(ceil_div(rows * kKeysARow, kMmaTile), kLeastTiles, kManyTiles),
               ceil_div(tiles, most_chunks(args)));
  if (rows > most_few_rows(args.head_dim) && tiles <= least) return {};
  const std::int64_t chunk_tiles = ceil_div(tiles, ceil_div(tiles, least));
  return {rows, chunk_tiles * kMmaTile, ceil_div(tiles, chunk_tiles)};
}

/// Whether a call's sequences may decode, as the host knows it: where every one has as many queries
/// as keys, or more shared ones than these are, none does.
constexpr bool may_decode(const AttentionView& args) {
  return args.most_decoding_rows > 0 && args.query_offsets.data() != args.key_offsets.data() &&
         args.num_shared_queries * heads_per_key_head(args) <= args.most_decoding_rows;
}

/// Rows of a sequence that decodes, at most, in a call if tensor cores take it. Hopper's wgmma
/// multiplies faster than decoding does: there a sequence decodes only if reading its keys takes
/// longer than multiplying them.
std::int64_t most_rows(const AttentionView& args, const Stream& stream);

/// Tasks of kTaskRows rows or fewer of one that decodes in a head of its tasks, of which there are
/// `heads` (decoding_heads).
constexpr std::int64_t row_blocks(const AttentionView& args, const DecodingSplit& split,
                                  std::int64_t heads) {
  return ceil_div(split.rows * args.num_key_heads / heads, kTaskRows);
}

/// Rows of partials, each of head_dim values, a maximum and a sum, that a call may need: what keeps
/// the device busy, or what its sequences have if that is less.
std::int64_t most_partial_rows(const AttentionView& args, const Stream& stream);

/// The sequences of a call that decode, by way of its partials.
void forward_of_decoding(const AttentionView& args, const WorkList& work, const Stream& stream);

struct DecodingCall;
/// Its part on tensor cores.
void decode_on_tensor_cores(const AttentionView& args, const WorkList& work,
                            const DecodingCall& call, const Stream& stream);

}  // namespace serrate
