#include "tests/kernels/attention/masks.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <utility>
#include <variant>

namespace serrate {
namespace {

using Visible = reference::Visible;

std::int64_t draw(std::mt19937& generator, std::int64_t low, std::int64_t high) {
  return std::uniform_int_distribution<std::int64_t>(low, high)(generator);
}

std::int64_t longest(const std::vector<std::int64_t>& lengths) {
  return lengths.empty() ? 0 : *std::ranges::max_element(lengths);
}

constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

// One time in ten `low` or `high`, which may be as far as integers reach.
std::int64_t or_extreme(std::int64_t x, std::int64_t low, std::int64_t high,
                        std::mt19937& generator) {
  const std::int64_t which = draw(generator, 0, 19);
  return which == 0 ? low : which == 1 ? high : x;
}

TestMask window_mask(const MaskedBatch& batch, std::mt19937& generator) {
  const std::int64_t longest_keys = longest(batch.key_lengths);
  const std::int64_t left = or_extreme(draw(generator, -3, longest_keys) / draw(generator, 1, 4),
                                       -kUnlimited, kUnlimited - 1, generator);
  const std::int64_t right =
      or_extreme(draw(generator, -3, longest_keys) / 3, -kUnlimited, kUnlimited, generator);
  const bool top_left = draw(generator, 0, 1) == 0;
  return {WindowMask{left, right, top_left ? MaskCorner::kTopLeft : MaskCorner::kBottomRight},
          [=](std::int64_t s, std::int64_t i, std::int64_t j) {
            const std::int64_t own =
                i + (top_left ? 0 : batch.key_lengths[s] - batch.query_lengths[s]);
            return own - left <= j && j <= own + right;
          }};
}

TestMask prefix_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  std::vector<std::int64_t> prefixes;
  for (const std::int64_t keys : batch.key_lengths) {
    prefixes.push_back(or_extreme(draw(generator, -1, keys + 1), kLeast, kMost, generator));
  }
  TestMask result{
      {},
      [=](std::int64_t s, std::int64_t i, std::int64_t j) { return j < prefixes[s] || j <= i; },
      Buffer<std::int64_t>(prefixes, stream)};
  result.mask = PrefixMask{result.values.span()};
  return result;
}

// Ranges for every query, or every key, at times empty, crossed, or far beyond the sequence.
std::vector<std::int64_t> random_ranges(const std::vector<std::int64_t>& offsets,
                                        const std::vector<std::int64_t>& other_lengths,
                                        std::mt19937& generator) {
  std::vector<std::int64_t> ranges(static_cast<std::size_t>(offsets.back()) * 4, 0);
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    const std::int64_t length = other_lengths[s];
    std::int64_t base[4];
    for (std::int64_t& x : base) x = draw(generator, -2, length + 2);
    for (std::int64_t t = offsets[s]; t < offsets[s + 1]; ++t) {
      for (int r = 0; r < 4; ++r) {
        ranges[t * 4 + r] = or_extreme(base[r] + draw(generator, -2, 2), kLeast, kMost, generator);
      }
    }
  }
  return ranges;
}

TestMask row_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  const auto ranges = random_ranges(batch.query_offsets, batch.key_lengths, generator);
  TestMask result{{},
                  [=](std::int64_t s, std::int64_t i, std::int64_t j) {
                    const std::int64_t* r = &ranges[(batch.query_offsets[s] + i) * 4];
                    return (r[0] <= j && j < r[1]) || (r[2] <= j && j < r[3]);
                  },
                  Buffer<std::int64_t>(ranges, stream)};
  result.mask = RowMask{result.values.span()};
  return result;
}

TestMask column_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  const auto ranges = random_ranges(batch.key_offsets, batch.query_lengths, generator);
  TestMask result{{},
                  [=](std::int64_t s, std::int64_t i, std::int64_t j) {
                    const std::int64_t* r = &ranges[(batch.key_offsets[s] + j) * 4];
                    return !(r[0] <= i && i < r[1]) && !(r[2] <= i && i < r[3]);
                  },
                  Buffer<std::int64_t>(ranges, stream)};
  result.mask = ColumnMask{result.values.span()};
  return result;
}

TestMask document_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  const std::int64_t right = draw(generator, 0, 1) == 0 ? 0 : draw(generator, 0, 40);
  std::vector<std::int64_t> offsets = {batch.query_offsets.front()};
  while (offsets.back() < batch.query_offsets.back()) {
    offsets.push_back(offsets.back() + draw(generator, 0, 60));
  }
  TestMask result{{},
                  [=](std::int64_t s, std::int64_t i, std::int64_t j) {
                    const auto document = [&](std::int64_t token) {
                      return std::upper_bound(offsets.begin(), offsets.end(),
                                              batch.query_offsets[s] + token) -
                             offsets.begin();
                    };
                    return document(i) == document(j) && j <= i + right;
                  },
                  Buffer<std::int64_t>(offsets, stream)};
  result.mask = DocumentMask{result.values.span(), right};
  return result;
}

// generative-recommenders' _get_valid_attn_mask, and FBGEMM's groups of targets. A sequence with
// fewer tokens than contexts has the one place that contexts count as, too.
bool hstu_sees(const HstuMask& mask, std::int64_t length, std::int64_t targets, std::int64_t i,
               std::int64_t j) {
  const std::int64_t shift = mask.num_contexts > 0 ? mask.num_contexts - 1 : 0;
  const std::int64_t max_id =
      std::max<std::int64_t>(length - shift - targets, mask.num_contexts > 0 ? 1 : 0);
  const auto id = [&](std::int64_t token) {
    return std::clamp<std::int64_t>(token - shift, 0, max_id);
  };
  const std::int64_t distance = id(i) - id(j);
  bool sees = i == j || distance > 0;
  const bool is_full = mask.full_length > 0 && id(i) >= max_id - mask.full_length;
  sees = sees && (distance <= mask.window || is_full);
  sees = sees || (mask.num_contexts > 0 && id(i) == 0 && i < length - targets && id(j) < max_id);
  const std::int64_t history = length - targets;
  const bool same_group =
      i >= history && j >= history &&
      (i - history) / mask.target_group_size == (j - history) / mask.target_group_size;
  return sees || (same_group && j <= i);
}

TestMask hstu_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  HstuMask mask{.num_contexts = draw(generator, 0, 3)};
  std::vector<std::int64_t> targets;
  for (const std::int64_t length : batch.query_lengths) {
    targets.push_back(draw(generator, 0, std::max<std::int64_t>(length - mask.num_contexts, 0)) /
                      draw(generator, 1, 3));
  }
  mask.target_group_size = draw(generator, 1, 3);
  if (draw(generator, 0, 1) == 0) {
    mask.window = or_extreme(draw(generator, 0, longest(batch.query_lengths)), 0, kMost, generator);
  }
  if (draw(generator, 0, 1) == 0) {
    mask.full_length = or_extreme(draw(generator, 0, 20), 1, kMost, generator);
  }
  TestMask result{{},
                  [=](std::int64_t s, std::int64_t i, std::int64_t j) {
                    return hstu_sees(mask, batch.query_lengths[s], targets[s], i, j);
                  },
                  Buffer<std::int64_t>(targets, stream)};
  mask.num_targets = result.values.span();
  result.mask = mask;
  return result;
}

// The bits of dense masks of the given sizes, and where they are.
class BitMasks {
 public:
  explicit BitMasks(const Stream& stream) : stream_(stream) {}
  void add(std::int64_t num_queries, std::int64_t num_keys,
           const std::vector<std::uint8_t>& dense) {
    const Buffer<std::uint8_t> visible(dense, stream_);
    bits_.emplace_back(visible.matrix(num_queries, num_keys), stream_);
    views_.push_back(bits_.back().view());
  }
  void move_to(TestMask& mask) {
    mask.bits = std::move(bits_);
    mask.views = Buffer<BitMaskView>(views_, stream_);
    mask.mask = BlockMask{mask.views.span()};
  }

 private:
  const Stream& stream_;
  std::vector<BitMask> bits_;
  std::vector<BitMaskView> views_;
};

// Blocks of tokens that are empty, full, or in between.
std::vector<std::uint8_t> random_dense(std::int64_t queries, std::int64_t keys,
                                       std::mt19937& generator) {
  const std::int64_t size = draw(generator, 1, 100), across = keys / size + 1;
  std::vector<double> density((queries / size + 1) * across);
  for (double& x : density) {
    x = std::array{0.0, 0.0, 0.03, 0.5, 1.0, 1.0}[static_cast<std::size_t>(draw(generator, 0, 5))];
  }
  std::vector<std::uint8_t> dense(queries * keys);
  for (std::int64_t i = 0; i < queries; ++i) {
    for (std::int64_t j = 0; j < keys; ++j) {
      dense[i * keys + j] =
          std::bernoulli_distribution(density[i / size * across + j / size])(generator);
    }
  }
  return dense;
}

TestMask shared_block_mask(const MaskedBatch& batch, std::mt19937& generator,
                           const Stream& stream) {
  const std::int64_t queries = longest(batch.query_lengths) + draw(generator, 0, 20);
  const std::int64_t keys = longest(batch.key_lengths) + draw(generator, 0, 20);
  const std::vector<std::uint8_t> dense = random_dense(queries, keys, generator);
  TestMask result{
      {}, [=](std::int64_t, std::int64_t i, std::int64_t j) { return dense[i * keys + j] != 0; }};
  BitMasks bits(stream);
  bits.add(queries, keys, dense);
  bits.move_to(result);
  return result;
}

TestMask block_mask(const MaskedBatch& batch, std::mt19937& generator, const Stream& stream) {
  std::vector<std::vector<std::uint8_t>> dense;
  TestMask result;
  BitMasks bits(stream);
  for (std::size_t s = 0; s < batch.query_lengths.size(); ++s) {
    const std::int64_t queries = batch.query_lengths[s], keys = batch.key_lengths[s];
    dense.push_back(random_dense(queries, keys, generator));
    bits.add(queries, keys, dense.back());
  }
  result.visible = [=](std::int64_t s, std::int64_t i, std::int64_t j) {
    return dense[s][i * batch.key_lengths[s] + j] != 0;
  };
  bits.move_to(result);
  return result;
}

}  // namespace

std::string to_string(MaskKind kind) {
  return std::array{"Full",    "Causal", "CausalBottomRight", "Window",    "Prefix", "Rows",
                    "Columns", "Blocks", "SharedBlocks",      "Documents", "Hstu"}
      .at(static_cast<std::size_t>(kind));
}

TestMask random_mask(MaskKind kind, const MaskedBatch& batch, std::mt19937& generator,
                     const Stream& stream) {
  const auto causal_bottom_right = [batch](std::int64_t s, std::int64_t i, std::int64_t j) {
    return j <= i + batch.key_lengths[s] - batch.query_lengths[s];
  };
  switch (kind) {
    case MaskKind::kFull:
      return {FullMask{}, [](std::int64_t, std::int64_t, std::int64_t) { return true; }};
    case MaskKind::kCausal:
      return {kCausalMask, reference::causal};
    case MaskKind::kCausalBottomRight:
      return {WindowMask{.right = 0, .corner = MaskCorner::kBottomRight}, causal_bottom_right};
    case MaskKind::kWindow:
      return window_mask(batch, generator);
    case MaskKind::kPrefix:
      return prefix_mask(batch, generator, stream);
    case MaskKind::kRows:
      return row_mask(batch, generator, stream);
    case MaskKind::kColumns:
      return column_mask(batch, generator, stream);
    case MaskKind::kBlocks:
      return block_mask(batch, generator, stream);
    case MaskKind::kSharedBlocks:
      return shared_block_mask(batch, generator, stream);
    case MaskKind::kDocuments:
      return document_mask(batch, generator, stream);
    case MaskKind::kHstu:
      return hstu_mask(batch, generator, stream);
  }
  std::abort();
}

namespace {

// Entries of some sequences, `width` for each token that `offsets` counts, as offsets_of has it.
std::vector<std::int64_t> rows_of(const std::vector<std::int64_t>& values,
                                  const std::vector<std::int64_t>& offsets,
                                  const std::vector<std::size_t>& sequences, std::int64_t width) {
  std::vector<std::int64_t> result(kTokensBefore * width);
  for (const std::size_t s : sequences) {
    result.insert(result.end(), values.begin() + offsets[s] * width,
                  values.begin() + offsets[s + 1] * width);
  }
  return result;
}

// A mask's array for some sequences of a batch; it becomes that of the mask.
struct ArrayOfSequences {
  const TestMask& all;
  const MaskedBatch& batch;
  const std::vector<std::size_t>& sequences;
  const Stream& stream;
  TestMask& result;
  const std::vector<std::int64_t> values = all.values.to_host(stream);

  DeviceSpan<const std::int64_t> keep(const std::vector<std::int64_t>& of_sequences) const {
    result.values = Buffer<std::int64_t>(of_sequences, stream);
    return result.values.span();
  }
  DeviceSpan<const std::int64_t> one_a_sequence() const {
    std::vector<std::int64_t> kept;
    for (const std::size_t s : sequences) kept.push_back(values[s]);
    return keep(kept);
  }
  void operator()(const FullMask&) const {}
  void operator()(const WindowMask&) const {}
  void operator()(PrefixMask& mask) const { mask.prefix_lengths = one_a_sequence(); }
  void operator()(HstuMask& mask) const { mask.num_targets = one_a_sequence(); }
  void operator()(RowMask& mask) const {
    mask.ranges = keep(rows_of(values, batch.query_offsets, sequences, 4));
  }
  void operator()(ColumnMask& mask) const {
    mask.ranges = keep(rows_of(values, batch.key_offsets, sequences, 4));
  }
  void operator()(DocumentMask& mask) const {
    std::vector<std::int64_t> offsets = {kTokensBefore};
    for (const std::size_t s : sequences) {
      const std::int64_t begin = batch.query_offsets[s], moved = offsets.back() - begin;
      const std::int64_t end = batch.query_offsets[s + 1];
      for (const std::int64_t x : values) {
        if (begin < x && x < end) offsets.push_back(x + moved);
      }
      offsets.push_back(end + moved);
    }
    mask.document_offsets = keep(offsets);
  }
  void operator()(BlockMask& mask) const {
    if (mask.masks.size() == 1) return;
    const std::vector<BitMaskView> views = all.views.to_host(stream);
    std::vector<BitMaskView> kept;
    for (const std::size_t s : sequences) kept.push_back(views[s]);
    result.views = Buffer<BitMaskView>(kept, stream);
    mask.masks = result.views.span();
  }
};

}  // namespace

TestMask of_sequences(const TestMask& mask, const MaskedBatch& batch,
                      const std::vector<std::size_t>& sequences, const Stream& stream) {
  TestMask result{mask.mask,
                  [=, visible = mask.visible](std::int64_t s, std::int64_t i, std::int64_t j) {
                    return visible(static_cast<std::int64_t>(sequences[s]), i, j);
                  }};
  std::visit(ArrayOfSequences{mask, batch, sequences, stream, result}, result.mask);
  return result;
}

TestMask as_bits(const TestMask& mask, const MaskedBatch& batch, const Stream& stream) {
  TestMask result{{}, mask.visible};
  BitMasks bits(stream);
  for (std::size_t s = 0; s < batch.query_lengths.size(); ++s) {
    const std::int64_t queries = batch.query_lengths[s], keys = batch.key_lengths[s];
    std::vector<std::uint8_t> dense(queries * keys);
    for (std::int64_t i = 0; i < queries; ++i) {
      for (std::int64_t j = 0; j < keys; ++j) {
        dense[i * keys + j] = mask.visible(static_cast<std::int64_t>(s), i, j);
      }
    }
    bits.add(queries, keys, dense);
  }
  bits.move_to(result);
  return result;
}

}  // namespace serrate
