#include "src/core/dispatch.h"

namespace serrate {

void throw_no_backend(Device device) {
  throw Error("no backend for " + to_string(device) +
              " (this build has none): configure with -DSERRATE_CUDA=ON");
}

}  // namespace serrate
