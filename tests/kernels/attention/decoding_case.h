#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/kernels/attention/case.h"
#include "tests/kernels/attention/tensor_core_cases.h"

namespace serrate {

/// How q, k and v are stored.
enum class Stored { kAsFloat32, kAsBFloat16 };

inline void run_forward(Case& c, Stored stored) {
  if (stored == Stored::kAsBFloat16) return run_halves(c, Backward::kNotRun);
  c.out.clear();
  jagged_attention_forward(c.forward_args(), c.streams.stream);
}

// Sequence s of a batch that has been run, on its own.
inline void expect_same_alone(Case& batch, std::size_t s, Stored stored) {
  Shape only = batch.shape;
  only.query_lengths = {batch.shape.query_lengths[s]};
  only.key_lengths = {batch.shape.key_lengths[s]};
  Case alone(only, batch.streams);
  const auto copy = [&](Tokens& from, Tokens& to, const std::vector<std::int64_t>& offsets) {
    std::copy(from.at(offsets[s], 0), from.at(offsets[s + 1], 0), to.at(kTokensBefore, 0));
  };
  copy(batch.q, alone.q, batch.query_offsets), copy(batch.k, alone.k, batch.key_offsets);
  copy(batch.v, alone.v, batch.key_offsets);
  run_forward(alone, stored);
  Tokens expected(alone.out);
  copy(batch.out, expected, batch.query_offsets);
  expect_same_bits(alone.out.values, expected.values);
}

}  // namespace serrate
