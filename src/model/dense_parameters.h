#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "serrate/buffer.h"
#include "serrate/kernels/adamw.h"

namespace serrate {

/// How a parameter starts.
enum class Init { kZero, kOne, kUniform };

/// A dense parameter's place in the flat buffers.
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

/// All dense parameters of a model in one flat buffer, with gradients and moments in three more of
/// the same layout: one all-reduce and one optimizer launch serve them all.
class DenseParameters {
 public:
  /// Values are functions of (seed, parameter, element).
  DenseParameters(std::vector<ParameterSlice> slices, std::uint64_t seed, const Stream& stream);

  const std::vector<ParameterSlice>& slices() const { return slices_; }
  std::int64_t size() const { return values_.size(); }
  DeviceMatrix<float> value(std::int64_t slice) { return view(values_, slice); }
  DeviceMatrix<float> gradient(std::int64_t slice) { return view(gradients_, slice); }
  DeviceSpan<float> values() { return values_.span(); }
  DeviceSpan<float> gradients() { return gradients_.span(); }
  DeviceSpan<float> first_moment() { return first_moment_.span(); }
  DeviceSpan<float> second_moment() { return second_moment_.span(); }

  /// AdamW with the gradients as they stand; `step` counts from 1.
  void update(const AdamWOptions& options, std::int64_t step, const Stream& stream);

 private:
  DeviceMatrix<float> view(Buffer<float>& buffer, std::int64_t slice) {
    const ParameterSlice& s = slices_[slice];
    return {buffer.span().subspan(s.offset), s.rows, s.cols};
  }

  std::vector<ParameterSlice> slices_;
  Buffer<float> values_, gradients_, first_moment_, second_moment_, decay_;
};

}  // namespace serrate
