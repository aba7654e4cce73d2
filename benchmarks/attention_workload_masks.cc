// What the masks of workloads show.
#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <utility>

#include "benchmarks/attention_workloads.h"

namespace serrate {
namespace {

using enum WorkloadMask;

// The documents of a sequence, in sixteenths of it.
constexpr std::int64_t kDocumentEnds[] = {1, 3, 8, 9, 11, 16};

std::pair<std::int64_t, std::int64_t> document_of(std::int64_t i, std::int64_t length) {
  std::int64_t begin = 0;
  for (const std::int64_t sixteenths : kDocumentEnds) {
    const std::int64_t end = length * sixteenths / 16;
    if (i < end) return {begin, end};
    begin = end;
  }
  return {begin, length};
}

// The stretches of a sequence that QK-sparse leaves out, in 8192ths of it: FlashMask's.
constexpr std::int64_t kLeftOut[][2] = {{1024, 1562}, {2358, 4058}};

}  // namespace

std::string to_string(WorkloadMask mask) {
  switch (mask) {
    case kFull:
      return "full";
    case kCausal:
      return "causal";
    case kWindow:
      return "window";
    case kPrefix:
      return "prefix";
    case kDocuments:
      return "documents";
    case kFullDocuments:
      return "full-documents";
    case kPrefixDocuments:
      return "prefix-documents";
    case kSharedQuestions:
      return "shared-questions";
    case kBlockwise:
      return "blockwise";
    case kGlobalWindow:
      return "global-window";
    case kQkSparse:
      return "QK-sparse";
    case kRandomEviction:
      return "random-eviction";
    case kLongFormer:
      return "LongFormer";
  }
  return {};
}

KeyRanges AttentionWorkload::keys_of(std::int64_t i, std::int64_t num_keys) const {
  const auto one = [](std::int64_t begin, std::int64_t end) {
    return KeyRanges{{begin, end}, {end, end}};
  };
  const auto with_first = [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t first = std::min(globals, end);
    return KeyRanges{{0, std::max(begin, first)}, {first, end}};
  };
  const auto [document, document_end] = document_of(i, num_keys);
  const std::int64_t back = std::max<std::int64_t>(i - window, 0);
  switch (mask) {
    case kFull:
      return one(0, num_keys);
    case kCausal:
      return one(0, i + 1);
    case kWindow:
      return one(back, i + 1);
    case kPrefix:
      return one(0, std::max(i + 1, num_keys / 2));
    case kDocuments:
      return one(document, i + 1);
    case kFullDocuments:
      return one(document, document_end);
    case kPrefixDocuments:
      return one(document, std::max(i + 1, (document + document_end) / 2));
    case kSharedQuestions: {
      const std::int64_t part = (document_end - document + 3) / 4;
      const std::int64_t own = document + (i - document) / part * part;
      return {{document, own}, {std::min(document + part, own), i + 1}};
    }
    case kBlockwise:
      return one(document_end == num_keys ? 0 : document, i + 1);
    case kGlobalWindow:
      return with_first(back, i + 1);
    case kQkSparse:
      for (const auto& [begin, end] : kLeftOut) {
        const std::int64_t first = num_keys * begin / 8192;
        if (first <= i && i < num_keys * end / 8192) return one(0, first);
      }
      return one(0, i + 1);
    case kRandomEviction:
      return one(0, i + 1);
    case kLongFormer:
      return i < globals ? one(0, num_keys) : with_first(back, std::min(i + window + 1, num_keys));
  }
  return {};
}

// As FlashMask's benchmark draws it: each query of the second half forgets a key. Of the keys
// drawn, those that come before their query go first, so that few are forgotten before they are
// seen; a query sees its own key in any case.
std::vector<std::int64_t> AttentionWorkload::forgotten_at(std::int64_t num_keys) const {
  if (mask != kRandomEviction) return {};
  const std::int64_t half = (num_keys + 1) / 2;
  std::vector<std::int64_t> drawn(static_cast<std::size_t>(num_keys));
  std::iota(drawn.begin(), drawn.end(), 0);
  std::shuffle(drawn.begin(), drawn.end() - 1, std::mt19937(1));  // the last key stays
  std::vector<std::int64_t> forgotten, late;
  for (std::int64_t query = half; query < num_keys; ++query) {
    const std::int64_t key = drawn[query - half];
    (key < query - 1 ? forgotten : late).push_back(key);
  }
  forgotten.insert(forgotten.end(), late.begin(), late.end());
  std::vector<std::int64_t> at(drawn.size(), num_keys);
  for (std::int64_t query = half; query < num_keys; ++query) {
    const std::int64_t key = forgotten[query - half];
    at[key] = std::max(query, key + 1);
  }
  return at;
}

PairCounts count_pairs(const AttentionWorkload& workload) {
  constexpr std::int64_t kTile = 64, kPart = 16;
  const auto rounded = [&](std::int64_t count) {
    return std::min(kTile, (count + kPart - 1) / kPart * kPart);
  };
  std::map<std::pair<std::int64_t, std::int64_t>, PairCounts> known;  // by lengths
  PairCounts sum;
  for (std::size_t s = 0; s < workload.key_lengths.size(); ++s) {
    const std::int64_t queries = workload.query_lengths[s], keys = workload.key_lengths[s];
    const auto [found, is_new] = known.try_emplace({queries, keys});
    PairCounts& counts = found->second;
    const std::vector<std::int64_t> forgotten = workload.forgotten_at(keys);
    for (std::int64_t tile = 0; is_new && tile < queries; tile += kTile) {
      std::vector<char> is_visited(static_cast<std::size_t>(keys / kTile + 1));
      for (std::int64_t i = tile; i < std::min(tile + kTile, queries); ++i) {
        const KeyRanges seen = workload.keys_of(i, keys);
        for (int range = 0; range < 2; ++range) {
          const std::int64_t begin = seen.begin[range], end = seen.end[range];
          if (begin >= end) continue;
          if (!forgotten.empty()) {
            for (std::int64_t key = begin; key < end; ++key) {
              if (i >= forgotten[key]) continue;
              counts.visible += 1;
              is_visited[key / kTile] = 1;
            }
            continue;
          }
          counts.visible += static_cast<double>(end - begin);
          std::fill(is_visited.begin() + begin / kTile, is_visited.begin() + (end - 1) / kTile + 1,
                    1);
        }
      }
      for (std::int64_t key = 0; key < keys; key += kTile) {
        if (is_visited[key / kTile] == 0) continue;
        counts.in_tiles += static_cast<double>(rounded(queries - tile) * rounded(keys - key));
      }
    }
    sum.visible += counts.visible;
    sum.in_tiles += counts.in_tiles;
  }
  return sum;
}

}  // namespace serrate
