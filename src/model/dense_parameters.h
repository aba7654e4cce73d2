#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/any_matrix.h"
#include "serrate/buffer.h"
#include "serrate/kernels/adamw.h"
#include "serrate/kernels/linear.h"

namespace serrate {

/// How a parameter starts.
enum class Init { kZero, kOne, kUniform };

/// A dense parameter's place in the flat buffers, at a multiple of kParameterAlignment values.
struct ParameterSlice {
  std::string name;
  std::int64_t offset = 0;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  Init init = Init::kZero;
  float scale = 0;     // kUniform: [-scale, scale)
  bool decays = true;  // AdamW's weight decay applies (matrices, not biases and norms)
  std::int64_t size() const { return rows * cols; }
};

/// 16 bytes of bfloat16, which biases are aligned to in products.
inline constexpr std::int64_t kParameterAlignment = 8;

/// All dense parameters of a model in one flat buffer, with gradients and moments in three more of
/// the same layout, and copies in bfloat16 where products take these: one all-reduce and one
/// optimizer launch serve them all. What lies between two parameters is 0.
class DenseParameters {
 public:
  /// Values are functions of (seed, parameter, element).
  DenseParameters(std::vector<ParameterSlice> slices, Precision precision, std::uint64_t seed,
                  const Stream& stream);

  const std::vector<ParameterSlice>& slices() const { return slices_; }
  /// Of all parameters, with what lies between them.
  std::int64_t size() const { return values_.size(); }
  DeviceMatrix<const float> value(std::int64_t slice) const { return view(values_.span(), slice); }
  DeviceMatrix<float> gradient(std::int64_t slice) { return view(gradients_.span(), slice); }
  /// A weight or bias as products take it; in bf16 after round_values().
  InputMatrix factor(std::int64_t slice) const;
  /// The caller may write them until the next forward, which rounds them again; do not keep the
  /// span.
  DeviceSpan<float> values() {
    is_rounded_ = false;
    return values_.span();
  }
  DeviceSpan<float> gradients() { return gradients_.span(); }
  DeviceSpan<float> first_moment() { return first_moment_.span(); }
  DeviceSpan<float> second_moment() { return second_moment_.span(); }

  /// In bf16, rounds the values again if values() was called since; update() does so itself.
  void round_values(const Stream& stream);
  std::int64_t rounded_bytes() const { return rounded_.bytes(); }

  /// AdamW with the gradients as they stand; `step` counts from 1.
  void update(const AdamWOptions& options, std::int64_t step, const Stream& stream);

 private:
  template <typename T>
  DeviceMatrix<T> view(DeviceSpan<T> span, std::int64_t slice) const {
    const ParameterSlice& s = slices_[slice];
    return {span.subspan(s.offset), s.rows, s.cols};
  }

  std::vector<ParameterSlice> slices_;
  Buffer<float> values_, gradients_, first_moment_, second_moment_, decay_;
  Buffer<BFloat16> rounded_;  // in bf16
  bool is_rounded_ = false;
};

}  // namespace serrate
