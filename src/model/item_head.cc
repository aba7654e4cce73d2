#include "src/model/item_head.h"

#include "serrate/kernels/add_to.h"
#include "serrate/kernels/l2_normalize.h"
#include "serrate/kernels/sampled_softmax.h"
#include "src/core/profiler_range.h"

namespace serrate {

DeviceMatrix<const float> ItemHead::Normalized::forward(DeviceMatrix<const float> x,
                                                        const Stream& stream) {
  const DeviceMatrix<float> y{rows.resize_discard(x.rows * x.cols, stream), x.rows, x.cols};
  l2_normalize_forward(x, y, norms.resize_discard(x.rows, stream), stream);
  return y;
}

void ItemHead::Normalized::backward(DeviceMatrix<float> d_x, const Stream& stream) {
  l2_normalize_backward(rows.matrix(d_x.rows, d_x.cols), norms.span(), d_x, d_x, stream);
}

void ItemHead::forward_backward(const ItemHeadBatch& batch, DeviceSpan<double> loss,
                                const Stream& stream) {
  const ProfilerRange range("head");
  SampledSoftmax softmax{.hidden = batch.hidden,
                         .targets = batch.targets,
                         .negatives = batch.negatives,
                         .target_ids = batch.target_ids,
                         .negative_ids = batch.negative_ids,
                         .inverse_temperature = 1 / options_.temperature,
                         .d_loss = batch.d_loss,
                         .d_hidden = batch.d_hidden,
                         .d_targets = batch.d_targets,
                         .d_negatives = batch.d_negatives,
                         .precision = options_.precision};
  if (options_.l2_normalize) {
    softmax.hidden = hidden_.forward(batch.hidden, stream);
    softmax.targets = targets_.forward(batch.targets, stream);
    softmax.negatives = negatives_.forward(batch.negatives, stream);
    softmax.d_negatives = {
        d_negatives_.resize_discard(batch.negatives.rows * batch.negatives.cols, stream),
        batch.negatives.rows, batch.negatives.cols};
    fill_zero(d_negatives_.span(), stream);
  }
  sampled_softmax(softmax, loss, stream);
  if (!options_.l2_normalize) return;
  hidden_.backward(batch.d_hidden, stream);
  targets_.backward(batch.d_targets, stream);
  negatives_.backward(softmax.d_negatives, stream);
  add_to(d_negatives_.span(), batch.d_negatives.flat(), stream);
}

std::int64_t ItemHead::activation_bytes() const {
  std::int64_t values = d_negatives_.capacity();
  for (const Normalized* n : {&hidden_, &targets_, &negatives_}) {
    values += n->rows.capacity() + n->norms.capacity();
  }
  return values * static_cast<std::int64_t>(sizeof(float));
}

}  // namespace serrate
