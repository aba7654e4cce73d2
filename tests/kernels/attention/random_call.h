#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <vector>

#include "tests/kernels/attention/biases.h"
#include "tests/kernels/attention/case.h"
#include "tests/kernels/attention/masks.h"

namespace serrate {

/// Where kernels differ: any float32, halves or mix of them; halves, and float32 in tf32, that
/// tensor cores take where there is room; e4m3.
enum class CallKind { kAny, kHalves, kTf32, kFp8 };
std::string to_string(CallKind kind);

/// How the rows of a tensor lie.
enum class Layout { kPacked, kAlignedGaps, kOddGaps, kHeadsFirst };

/// One of the tensors of a call: their types and layouts are in this order.
inline constexpr Tokens Case::* kTensors[] = {&Case::q,   &Case::k,   &Case::v,   &Case::d_out,
                                              &Case::out, &Case::d_q, &Case::d_k, &Case::d_v};
inline constexpr std::size_t kNumTensors = std::size(kTensors);

/// A call of attention as a number says, without its values.
struct RandomCall {
  CallKind kind = CallKind::kAny;
  std::int64_t number = 0;
  Shape shape = {};
  MaskKind mask = MaskKind::kFull;
  std::array<DataType, kNumTensors> types = {};
  std::array<Layout, kNumTensors> layouts = {};
  float scale = 1, logit_size = 1;
  bool queries_are_shared = false;
  std::optional<BiasParts> biases = {};
  bool some_biases_hide = false;  ///< are -inf
  std::optional<DropoutKey> dropout = {};
  std::vector<std::size_t> again =
      {};                     ///< sequences of the batch that are called again, in this order
  bool first_is_nan = false;  ///< of those
};

/// The same for a kind and number everywhere. The first are small.
RandomCall random_call(CallKind kind, std::int64_t number);

/// Those that tests make if nobody says which.
std::vector<std::int64_t> default_numbers(CallKind kind);

std::ostream& operator<<(std::ostream& to, const RandomCall& call);

}  // namespace serrate
