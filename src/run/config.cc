#include "src/run/config.h"

#include <fmt/format.h>

#include "src/core/option_json.h"
#include "src/run/options.h"

namespace serrate {

std::string to_json(const TrainOptions& options) {
  TrainOptions fields = options;
  return options_to_json(option_table(fields));
}

TrainOptions train_options_from_json(std::string_view json, std::string_view document) {
  TrainOptions options;
  options_from_json(json, document, option_table(options));
  return options;
}

}  // namespace serrate
