#include "serrate/kernels/random_rows.h"

#include "src/core/dispatch.h"

namespace serrate {

void random_rows(const RandomRows& args, const Stream& stream) {
  check(args.first_row >= 0, "random_rows: first_row must not be negative");
  check(args.first_column >= 0 && args.first_column + args.rows.cols <= args.table_columns,
        "random_rows: the rows must have columns of the table");
  dispatch_device(stream.device(), [&](auto device) { random_rows_on<device()>(args, stream); });
}

}  // namespace serrate
