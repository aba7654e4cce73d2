#include <fmt/format.h>

#include "serrate/sharded_embedding.h"

namespace serrate {

std::string to_string(InvalidIds policy) {
  switch (policy) {
    case InvalidIds::kError:
      return "error";
    case InvalidIds::kDrop:
      return "drop";
    case InvalidIds::kOov:
      return "oov";
  }
  throw Error("InvalidIds out of range");
}

InvalidIds invalid_ids_from_string(const std::string& name) {
  for (const InvalidIds policy : {InvalidIds::kError, InvalidIds::kDrop, InvalidIds::kOov}) {
    if (name == to_string(policy)) return policy;
  }
  throw usage_error(
      fmt::format("unknown policy \"{}\" for invalid ids (choose error, drop or oov)", name));
}

}  // namespace serrate
