#include "benchmarks/attention_masks.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "benchmarks/processor_time.h"
#include "kernels/attention/cpu/tiles.h"
#include "serrate/buffer.h"
#include "serrate/kernels/attention.h"
#include "serrate/kernels/mask_reordering.h"

namespace serrate {
namespace {

constexpr std::int64_t kHeads = 4, kHeadDim = 64;

using Sees = std::function<bool(std::int64_t i, std::int64_t j)>;

// A mask of one sequence and what it points to.
struct MaskCase {
  std::string name;
  AttentionMask mask;
  std::vector<std::int64_t> values = {};
  std::vector<BitMask> bits = {};
  std::vector<BitMaskView> views = {};
  double build_seconds = 0;  // of bits
  double forward_seconds = std::numeric_limits<double>::infinity();
  double backward_seconds = std::numeric_limits<double>::infinity();
};

std::vector<std::uint8_t> dense_of(std::int64_t length, const Sees& sees) {
  std::vector<std::uint8_t> dense(length * length);
  for (std::int64_t i = 0; i < length; ++i) {
    for (std::int64_t j = 0; j < length; ++j) dense[i * length + j] = sees(i, j);
  }
  return dense;
}

MaskCase bits_case(std::string name, std::int64_t length, const std::vector<std::uint8_t>& dense) {
  MaskCase result{std::move(name), {}};
  const double start = processor_seconds();
  result.bits.emplace_back(DeviceMatrix(on_cpu(dense), length, length), Stream());
  result.build_seconds = processor_seconds() - start;
  result.views = {result.bits[0].view()};
  result.mask = BlockMask{on_cpu(result.views)};
  return result;
}

// Documents of a few hundred tokens, as packing leaves them.
std::vector<std::int64_t> document_offsets(std::int64_t length) {
  std::mt19937 generator(1);
  std::vector<std::int64_t> offsets = {0};
  while (offsets.back() < length) {
    offsets.push_back(std::min<std::int64_t>(
        offsets.back() + 100 + static_cast<std::int64_t>(generator() % 600), length));
  }
  return offsets;
}

// FlashMask's form of causal documents: a key is hidden from queries after its document's end and
// before itself.
std::vector<std::int64_t> columns_of(const std::vector<std::int64_t>& offsets,
                                     std::int64_t length) {
  std::vector<std::int64_t> ranges;
  for (std::int64_t j = 0; j < length; ++j) {
    ranges.insert(ranges.end(),
                  {*std::upper_bound(offsets.begin(), offsets.end(), j), length, 0, j});
  }
  return ranges;
}

// Tiles of 96 x 96 that are there or not; those that are see the given share of their pairs.
std::vector<std::uint8_t> random_tiles(std::int64_t length, double tiles, double pairs) {
  std::mt19937 generator(2);
  std::bernoulli_distribution is_there(tiles), sees(pairs);
  const std::int64_t across = length / kTileKeys + 1;
  std::vector<char> there(across * across);
  for (char& x : there) x = is_there(generator);
  return dense_of(length, [&](std::int64_t i, std::int64_t j) {
    return there[i / kTileQueries * across + j / kTileKeys] != 0 && sees(generator);
  });
}

// A window along a chain of tokens that lie anyhow.
MaskCase shuffled_chain(std::int64_t length, bool is_reordered) {
  std::vector<std::int64_t> chain(length);
  for (std::int64_t i = 0; i < length; ++i) chain[i] = i;
  std::shuffle(chain.begin(), chain.end(), std::mt19937(3));
  std::vector<std::uint8_t> dense(length * length);
  for (std::int64_t p = 0; p < length; ++p) {
    for (std::int64_t near = p; near < std::min(p + 8, length); ++near) {
      dense[chain[p] * length + chain[near]] = 1;
    }
  }
  if (!is_reordered) return bits_case("shuffled window 8", length, dense);
  const auto order = reverse_cuthill_mckee({dense.data(), length, length});
  return bits_case("shuffled window 8, reordered", length,
                   dense_of(length, [&](std::int64_t i, std::int64_t j) {
                     return dense[order[i] * length + order[j]] != 0;
                   }));
}

std::vector<MaskCase> mask_cases(std::int64_t length) {
  std::vector<MaskCase> cases;
  cases.push_back({"full", FullMask{}});
  cases.push_back({"causal", kCausalMask});
  cases.push_back({"window 512, causal", WindowMask{511, 0}});
  cases.push_back({"window 256 both ways", WindowMask{256, 256}});
  const auto offsets = document_offsets(length);
  cases.push_back({"documents, causal", {}, offsets});
  cases.back().mask = DocumentMask{on_cpu(cases.back().values)};
  cases.push_back({"documents, causal, by column", {}, columns_of(offsets, length)});
  cases.back().mask = ColumnMask{on_cpu(cases.back().values)};
  const auto document = [&](std::int64_t i) {
    return std::upper_bound(offsets.begin(), offsets.end(), i) - offsets.begin();
  };
  cases.push_back(bits_case("documents, causal, in bits", length,
                            dense_of(length, [&](std::int64_t i, std::int64_t j) {
                              return j <= i && document(i) == document(j);
                            })));
  cases.push_back(bits_case(
      "LongFormer window 8", length,
      dense_of(length, [](std::int64_t i, std::int64_t j) { return std::abs(i - j) <= 8; })));
  cases.push_back(bits_case("LongFormer window 8, 12 global", length,
                            dense_of(length, [&](std::int64_t i, std::int64_t j) {
                              const std::int64_t every = length / 12;
                              return std::abs(i - j) <= 8 || i % every == 0 || j % every == 0;
                            })));
  cases.push_back({"HSTU, 4 contexts, 64 targets", {}, {64}});
  cases.back().mask = HstuMask{.num_contexts = 4, .num_targets = on_cpu(cases.back().values)};
  cases.push_back(shuffled_chain(length, false));
  cases.push_back(shuffled_chain(length, true));
  for (const double tiles : {0.1, 0.25, 0.5}) {
    cases.push_back(bits_case(fmt::format("{:.0f} % of tiles, full", 100 * tiles), length,
                              random_tiles(length, tiles, 1)));
  }
  for (const double tiles : {0.25, 0.5, 0.75, 0.9, 1.0}) {
    cases.push_back(bits_case(fmt::format("{:.0f} % of tiles, half of their pairs", 100 * tiles),
                              length, random_tiles(length, tiles, 0.5)));
  }
  return cases;
}

struct Inputs {
  Stream stream;
  std::vector<std::int64_t> offsets;
  Buffer<float> q, k, v, d_out, out, d_q, d_k, d_v, lse;

  explicit Inputs(std::int64_t length) : offsets{0, length} {
    std::mt19937 generator(0);
    std::normal_distribution<float> normal;
    for (Buffer<float>* x : {&q, &k, &v, &d_out, &out, &d_q, &d_k, &d_v}) {
      *x = Buffer<float>(length * kHeads * kHeadDim, stream);
      for (float& value : host_view(x->span(), stream)) value = normal(generator);
    }
    lse = Buffer<float>(length * kHeads, stream);
  }
  static DeviceHeads<float> view(Buffer<float>& x) {
    return {x.device_data(), kHeads * kHeadDim, kHeadDim};
  }
  AttentionForward forward(const AttentionMask& mask) {
    return {.q = view(q),
            .k = view(k),
            .v = view(v),
            .out = view(out),
            .lse = lse.span(),
            .query_offsets = on_cpu(offsets),
            .key_offsets = on_cpu(offsets),
            .num_heads = kHeads,
            .head_dim = kHeadDim,
            .scale = 1 / std::sqrt(static_cast<float>(kHeadDim)),
            .mask = mask};
  }
};

// The scores in tiles that are not empty, over all.
double share_of_tiles(const AttentionForward& forward) {
  const AttentionView args = view_of(forward);
  const ColumnHulls columns(args);
  const AttentionTiles tiles(args, columns);
  const std::int64_t length = args.query_offsets[1], tile = attention_tile(length);
  std::int64_t scores = 0;
  QueryTileMask queries;
  TileMask mask;
  for (std::int64_t begin = 0; begin < length; begin += tile) {
    tiles.start(0, begin, std::min(tile, length - begin), queries);
    for (KeyTile keys; tiles.next(queries, keys, mask);) scores += queries.count * keys.count;
  }
  return static_cast<double>(scores) / static_cast<double>(length * length);
}

}  // namespace

void run_mask_cases(std::int64_t length, int rounds) {
  std::vector<MaskCase> cases = mask_cases(length);
  Inputs inputs(length);
  for (int round = 0; round < rounds; ++round) {
    for (MaskCase& c : cases) {
      const AttentionForward forward = inputs.forward(c.mask);
      keep_least(c.forward_seconds, [&] { jagged_attention_forward(forward, inputs.stream); });
      const AttentionBackward backward{forward, Inputs::view(inputs.d_out),
                                       Inputs::view(inputs.d_q), Inputs::view(inputs.d_k),
                                       Inputs::view(inputs.d_v)};
      keep_least(c.backward_seconds, [&] { jagged_attention_backward(backward, inputs.stream); });
    }
  }
  for (MaskCase& c : cases) {
    const double share = share_of_tiles(inputs.forward(c.mask));
    fmt::print(
        "{{\"mask\": \"{}\", \"tiles\": {:.4f}, \"forward_ms\": {:.2f}, \"backward_ms\": {:.2f}, "
        "\"forward_of_full\": {:.4f}, \"backward_of_full\": {:.4f}, \"build_ms\": {:.2f}}}\n",
        c.name, share, c.forward_seconds * 1e3, c.backward_seconds * 1e3,
        c.forward_seconds / cases[0].forward_seconds,
        c.backward_seconds / cases[0].backward_seconds, c.build_seconds * 1e3);
  }
}

}  // namespace serrate
