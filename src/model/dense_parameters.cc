#include "src/model/dense_parameters.h"

#include "serrate/kernels/round_to_bfloat16.h"
#include "serrate/random.h"
#include "src/core/profiler_range.h"

namespace serrate {
namespace {

float initial_value(const ParameterSlice& slice, std::uint64_t seed, std::uint32_t parameter,
                    std::int64_t element) {
  switch (slice.init) {
    case Init::kZero:
      return 0;
    case Init::kOne:
      return 1;
    case Init::kUniform:
      break;
  }
  const double u =
      random_uniform(seed, RandomUse::kInit, parameter, static_cast<std::uint64_t>(element));
  return static_cast<float>((2 * u - 1) * slice.scale);
}

}  // namespace

DenseParameters::DenseParameters(std::vector<ParameterSlice> slices, Precision precision,
                                 std::uint64_t seed, const Stream& stream)
    : slices_(std::move(slices)) {
  // Streams of kInit below 2^31 belong to the embedding tables.
  constexpr std::uint32_t kFirstStream = 1u << 31;
  std::vector<float> values, decay;
  for (std::size_t p = 0; p < slices_.size(); ++p) {
    ParameterSlice& slice = slices_[p];
    slice.offset = static_cast<std::int64_t>(values.size());
    for (std::int64_t i = 0; i < slice.size(); ++i) {
      values.push_back(initial_value(slice, seed, kFirstStream + static_cast<std::uint32_t>(p), i));
    }
    decay.insert(decay.end(), slice.size(), slice.decays ? 1.0f : 0.0f);
    while (std::ssize(values) % kParameterAlignment != 0) values.push_back(0), decay.push_back(0);
  }
  const auto size = static_cast<std::int64_t>(values.size());
  values_ = Buffer<float>(values, stream);
  decay_ = Buffer<float>(decay, stream);
  gradients_ = Buffer<float>::zeros(size, stream);
  first_moment_ = Buffer<float>::zeros(size, stream);
  second_moment_ = Buffer<float>::zeros(size, stream);
  if (precision == Precision::kBf16) rounded_ = Buffer<BFloat16>(size, stream);
}

InputMatrix DenseParameters::factor(std::int64_t slice) const {
  if (rounded_.size() == 0) return value(slice);
  check(is_rounded_, "values of parameters were written and not rounded");
  return view(rounded_.span(), slice);
}

void DenseParameters::round_values(const Stream& stream) {
  if (is_rounded_ || rounded_.size() == 0) return;
  round_to_bfloat16(values_.span(), rounded_.span(), stream);
  is_rounded_ = true;
}

void DenseParameters::update(const AdamWOptions& options, std::int64_t step, const Stream& stream) {
  const ProfilerRange range("dense update");
  adamw_update({.parameters = values_.span(),
                .first_moment = first_moment(),
                .second_moment = second_moment(),
                .gradients = gradients(),
                .decay = decay_.span(),
                .options = options,
                .step = step,
                .rounded = rounded_.span()},
               stream);
  is_rounded_ = true;
}

}  // namespace serrate
