#include "tests/kernels/attention/random_call.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <ostream>
#include <random>
#include <string_view>

#include "serrate/random.h"

namespace serrate {
namespace {

// Numbers that (kind, number) gives, one after the other.
class Draws {
 public:
  Draws(CallKind kind, std::int64_t number)
      : kind_(static_cast<std::uint32_t>(kind)), number_(static_cast<std::uint64_t>(number)) {}
  std::int64_t below(std::int64_t bound) {
    return random_below(number_, RandomUse::kGenerate, kind_, next_++, bound);
  }
  bool one_in(std::int64_t n) { return below(n) == 0; }
  template <typename T>
  T of(const std::vector<T>& choices) {
    return choices[static_cast<std::size_t>(below(std::ssize(choices)))];
  }

 private:
  std::uint32_t kind_;
  std::uint64_t number_, next_ = 0;
};

bool on_tensor_cores(CallKind kind) {
  return kind != CallKind::kAny;
}

std::int64_t draw_head_dim(CallKind kind, Draws& draws) {
  switch (kind) {
    case CallKind::kAny:
      return draws.of<std::int64_t>({1, 8, 20, 24, 32, 33, 48, 64, 80, 96, 128, 129, 200, 256});
    case CallKind::kHalves:
      return draws.of<std::int64_t>({32, 64, 64, 128, 128, 256});
    case CallKind::kTf32:
      return draws.of<std::int64_t>({32, 64, 128, 256});
    case CallKind::kFp8:
      return draws.of<std::int64_t>({64, 128, 256});
  }
  return 0;
}

// At the borders of tiles, and of what kernels take; at most `most`.
std::int64_t draw_length(std::int64_t most, Draws& draws) {
  static constexpr std::int64_t kBorders[] = {0,   1,   2,   15,  16,  17,  31,  32,  33,  63,
                                              64,  65,  95,  96,  97,  127, 128, 129, 191, 193,
                                              255, 256, 257, 319, 321, 383, 385, 511, 512, 513};
  if (draws.one_in(4)) return draws.below(std::min<std::int64_t>(most, 70) + 1);
  if (most > 576 && draws.one_in(8)) {
    return 576 + draws.below(std::min<std::int64_t>(most, 1'100) - 575);
  }
  const std::int64_t* const end = std::ranges::upper_bound(kBorders, most);
  return kBorders[draws.below(end - kBorders)];
}

// Lengths whose pairs are at most `most` together.
void draw_lengths(Shape& shape, bool is_self_attention, std::int64_t most, Draws& draws) {
  const std::int64_t batch_size = 1 + draws.below(6);
  for (std::int64_t s = 0; s < batch_size; ++s) {
    const auto root = static_cast<std::int64_t>(std::sqrt(static_cast<double>(most)));
    std::int64_t first = draw_length(is_self_attention ? root : std::max(root, most / 8), draws);
    std::int64_t second = is_self_attention || draws.one_in(4)
                              ? first
                              : draw_length(most / std::max<std::int64_t>(first, 1), draws);
    second = first * second > most ? most / first : second;
    if (is_self_attention) second = first;
    if (draws.one_in(2)) std::swap(first, second);
    shape.query_lengths.push_back(first), shape.key_lengths.push_back(second);
    most -= first * second;
  }
}

BiasParts draw_biases(Draws& draws) {
  BiasParts parts;
  const std::int64_t which = 1 + draws.below(7);
  parts.block = (which & 1) != 0, parts.by_place = (which & 2) != 0;
  parts.by_time = (which & 4) != 0;
  for (bool& own : parts.has_own) own = draws.one_in(2);
  if (!parts.has_own[2] && !parts.has_own[3]) parts.has_own[3] = true;
  parts.keys_are_rows = draws.one_in(3);
  parts.place_by_head = draws.one_in(2), parts.time_by_head = draws.one_in(2);
  return parts;
}

void draw_types(RandomCall& call, Draws& draws) {
  const DataType half = draws.one_in(2) ? DataType::kBFloat16 : DataType::kFloat16;
  DataType type = DataType::kFloat32;
  if (call.kind == CallKind::kHalves || (call.kind == CallKind::kAny && draws.one_in(2))) {
    type = half;
  }
  call.types.fill(type);
  if (call.kind == CallKind::kFp8 && draws.one_in(2)) call.types[4] = DataType::kBFloat16;
  if (call.kind != CallKind::kAny || !draws.one_in(4)) return;
  for (DataType& x : call.types) {
    x = draws.of<DataType>({DataType::kFloat32, DataType::kBFloat16, DataType::kFloat16});
  }
}

void draw_layouts(RandomCall& call, Draws& draws) {
  std::vector<Layout> choices = {Layout::kPacked, Layout::kAlignedGaps, Layout::kHeadsFirst};
  if (!on_tensor_cores(call.kind)) choices.push_back(Layout::kOddGaps);
  for (Layout& x : call.layouts) x = draws.of(choices);
  // A tensor of the backward that tensor cores do not take, after a forward that they did.
  if (call.kind != CallKind::kFp8 && draws.one_in(10)) {
    call.layouts[draws.of<std::size_t>({3, 5, 6, 7})] = Layout::kOddGaps;
  }
}

void draw_again(RandomCall& call, Draws& draws) {
  const std::int64_t batch_size = std::ssize(call.shape.query_lengths);
  const std::int64_t count = draws.one_in(2) ? 1 : 1 + draws.below(batch_size + 2);
  for (std::int64_t t = 0; t < count; ++t) {
    call.again.push_back(static_cast<std::size_t>(draws.below(batch_size)));
  }
  call.first_is_nan = count > 1 && !call.queries_are_shared && draws.one_in(2);
}

// Pairs times columns: what a call takes of time. One in eight is large.
std::int64_t draw_work(std::int64_t number, Draws& draws) {
  if (number < 8) return std::int64_t{1} << 16;
  return std::int64_t{1} << (draws.one_in(8) ? 22 + draws.below(3) : 16 + draws.below(6));
}

}  // namespace

RandomCall random_call(CallKind kind, std::int64_t number) {
  Draws draws(kind, number);
  RandomCall call;
  call.kind = kind, call.number = number;
  Shape& shape = call.shape;
  const bool is_fp8 = kind == CallKind::kFp8;
  shape.head_dim = draw_head_dim(kind, draws);
  shape.num_key_heads = 1 + draws.below(3);
  shape.num_heads = shape.num_key_heads * draws.of<std::int64_t>({1, 1, 1, 2, 3, 4, 8});
  call.queries_are_shared = !is_fp8 && draws.one_in(6);
  const auto masks =
      static_cast<std::int64_t>(call.queries_are_shared ? MaskKind::kDocuments : MaskKind::kHstu);
  call.mask = static_cast<MaskKind>(draws.below(masks + (call.queries_are_shared ? 0 : 1)));
  if (is_fp8 && call.mask >= MaskKind::kColumns && call.mask <= MaskKind::kSharedBlocks) {
    call.mask = MaskKind::kRows;
  }
  const std::int64_t pairs = draw_work(number, draws) / shape.num_heads / (shape.head_dim + 32);
  const bool is_self_attention = call.mask >= MaskKind::kDocuments || draws.one_in(4);
  draw_lengths(shape, is_self_attention && !call.queries_are_shared,
               std::max<std::int64_t>(pairs, 64), draws);
  if (call.queries_are_shared) {
    std::ranges::fill(shape.query_lengths,
                      std::max<std::int64_t>(1, std::ranges::min(shape.query_lengths)));
  }
  if (!is_fp8 && draws.one_in(3)) {
    shape.activation = AttentionActivation::kSilu;
    shape.silu_divisor = draws.of<float>({1, 50, -3});
  }
  if (!is_fp8 && draws.one_in(3)) {
    call.biases = draw_biases(draws);
    call.some_biases_hide = shape.activation == AttentionActivation::kSoftmax && draws.one_in(3);
  }
  if (!is_fp8 && draws.one_in(4)) {
    call.dropout = DropoutKey{.rate = draws.of<float>({0.1f, 0.5f}), .seed = 5, .step = 2};
    call.dropout->site = static_cast<std::uint32_t>(draws.below(1 << 16));
  }
  call.scale = 1 / std::sqrt(static_cast<float>(shape.head_dim));
  if (draws.one_in(10)) call.scale *= draws.of<float>({-1, 0.1f, 2});
  call.logit_size = draws.of<float>({1, 1, 1, 3});
  draw_types(call, draws);
  draw_layouts(call, draws);
  draw_again(call, draws);
  return call;
}

std::vector<std::int64_t> default_numbers(CallKind kind) {
  switch (kind) {
    case CallKind::kAny:
      return {0, 1, 1502};
    case CallKind::kHalves:
      return {1, 219, 267, 343, 1195};
    case CallKind::kTf32:
      return {1, 125, 140};
    case CallKind::kFp8:
      return {1, 62, 134};
  }
  return {};
}

std::string to_string(CallKind kind) {
  return std::array{"Any", "Halves", "Tf32", "Fp8"}.at(static_cast<std::size_t>(kind));
}

std::ostream& operator<<(std::ostream& to, const RandomCall& call) {
  const Shape& shape = call.shape;
  to << to_string(call.kind) << " call " << call.number << ": " << to_string(call.mask) << ", "
     << shape.num_heads << " heads of " << shape.head_dim << " over " << shape.num_key_heads
     << ", queries x keys";
  for (std::size_t s = 0; s < shape.query_lengths.size(); ++s) {
    to << ' ' << shape.query_lengths[s] << 'x' << shape.key_lengths[s];
  }
  if (call.queries_are_shared) to << " (shared queries)";
  if (shape.activation == AttentionActivation::kSilu) to << ", SiLU / " << shape.silu_divisor;
  if (call.biases) {
    to << ", biases:" << (call.biases->block ? " block" : "")
       << (call.biases->by_place ? " place" : "") << (call.biases->by_time ? " time" : "")
       << (call.some_biases_hide ? " -inf" : "");
  }
  if (call.dropout) to << ", dropout " << call.dropout->rate;
  to << ", scale " << call.scale << ", types and layouts";
  for (std::size_t i = 0; i < kNumTensors; ++i) {
    to << ' ' << static_cast<int>(call.types[i]) << '/' << static_cast<int>(call.layouts[i]);
  }
  to << ", again";
  for (const std::size_t s : call.again) to << ' ' << s;
  return to << (call.first_is_nan ? ", the first of NaN" : "");
}

}  // namespace serrate
