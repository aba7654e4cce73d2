#include "serrate/kernels/embedding_lookup.h"

#include "serrate/error.h"
#include "src/core/dispatch.h"

namespace serrate {

void embedding_lookup(std::span<const LookupSegment> segments, const Stream& stream) {
  for (const LookupSegment& s : segments) {
    check(std::ssize(s.offsets) == s.output.rows + 1, "offsets must be [num_bags + 1]");
    check(s.output.cols == s.table.cols, "the output must have the columns of the table");
    check(s.weights.empty() || s.weights.size() == s.indices.size(),
          "weights must be empty or as many as indices");
  }
  dispatch_device(stream.device(),
                  [&](auto device) { embedding_lookup_on<device()>(segments, stream); });
}

}  // namespace serrate
