#include "serrate/kernels/jagged_padded.h"

#include "kernels/matrix_batch_checks.h"
#include "src/core/dispatch.h"

namespace serrate {
namespace {

void copy_samples(const MatrixBatch<const float>& from, float fill, const MatrixBatch<float>& to,
                  const Stream& stream) {
  check_batch(from, to.batch_size, "the source of a jagged conversion");
  check_batch(to, to.batch_size, "the target of a jagged conversion");
  check(!to.is_shared(), "a jagged conversion needs a matrix for every sample");
  dispatch_device(stream.device(), [&](auto d) { copy_samples_on<d()>(from, fill, to, stream); });
}

}  // namespace

void jagged_to_padded(const MatrixBatch<const float>& jagged, float padding_value,
                      const MatrixBatch<float>& padded, const Stream& stream) {
  copy_samples(jagged, padding_value, padded, stream);
}

void padded_to_jagged(const MatrixBatch<const float>& padded, const MatrixBatch<float>& jagged,
                      const Stream& stream) {
  copy_samples(padded, 0, jagged, stream);
}

}  // namespace serrate
