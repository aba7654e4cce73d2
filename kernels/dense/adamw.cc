#include "serrate/kernels/adamw.h"

#include "src/core/dispatch.h"

namespace serrate {

void adamw_update(const AdamW& args, const Stream& stream) {
  const auto size = args.parameters.size();
  check(args.first_moment.size() == size && args.second_moment.size() == size &&
            args.gradients.size() == size && args.decay.size() == size,
        "adamw: moments, gradients and decay must be as long as the parameters");
  check(args.rounded.empty() || args.rounded.size() == size,
        "adamw: rounded must be empty or as long as the parameters");
  check(args.step >= 1, "adamw: steps count from 1");
  dispatch_device(stream.device(), [&](auto d) { adamw_update_on<d()>(args, stream); });
}

}  // namespace serrate
