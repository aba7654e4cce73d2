#include "serrate/kernels/top_k.h"

#include "kernels/shapes.h"
#include "src/core/dispatch.h"

namespace serrate {

void top_k(const TopK& args, const Stream& stream) {
  check(same_shape(args.best_scores, args.best_ids),
        "top_k: best_scores and best_ids must have the same shape");
  check(args.best_ids.rows == args.scores.rows, "top_k: the best need a row per row of scores");
  check(args.excluded_offsets.empty() || std::ssize(args.excluded_offsets) == args.scores.rows + 1,
        "top_k: excluded_offsets must have an entry per row and one more");
  dispatch_device(stream.device(), [&](auto d) { top_k_on<d()>(args, stream); });
}

}  // namespace serrate
