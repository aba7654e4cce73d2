#include "serrate/kernels/row_scores.h"

#include "src/core/dispatch.h"

namespace serrate {

void row_scores(const RowScores& args, const Stream& stream) {
  check(args.queries.cols == args.rows.cols, "row_scores: queries and rows must be as wide");
  check(args.scores.rows == args.queries.rows && args.scores.cols == args.rows.rows,
        "row_scores: scores must be [num_queries, num_rows]");
  check(args.scores.stride >=
            (args.scores.cols + kRowScoresRoom - 1) / kRowScoresRoom * kRowScoresRoom,
        "row_scores: a row of scores needs room for a multiple of 16");
  dispatch_device(stream.device(), [&](auto d) { row_scores_on<d()>(args, stream); });
}

}  // namespace serrate
