#include "serrate/kernels/random_rows.h"

#include <algorithm>

#include "kernels/embedding/random_weights.h"

namespace serrate {

template <>
void random_rows_on<DeviceType::kCpu>(const RandomRows& args, const Stream& stream) {
  const WeightDraw draw(args);
  const std::int64_t begin = args.first_column, end = begin + args.rows.cols;
  with_any_elements(args.rows, [&](const auto& device_rows) {
    const auto rows = host_view(device_rows, stream);
    using Value = std::remove_reference_t<decltype(*rows.row(0))>;
#pragma omp parallel for num_threads(stream.num_threads()) schedule(static)
    for (std::int64_t r = 0; r < rows.rows; ++r) {
      for (std::int64_t call = begin / kWeightsOfCall; call * kWeightsOfCall < end; ++call) {
        const auto words = draw.words(r, call);
        const std::int64_t at = call * kWeightsOfCall;
        for (std::int64_t c = std::max(at, begin); c < std::min(at + kWeightsOfCall, end); ++c) {
          rows.row(r)[c - begin] = Value(draw.weight(words[c - at]));
        }
      }
    }
  });
}

}  // namespace serrate
