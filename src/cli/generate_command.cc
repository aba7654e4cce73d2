#include "src/data/generate.h"

#include "src/cli/commands.h"

namespace serrate::cli {

int generate_command(const Arguments& arguments) {
  GenerateOptions options;
  options.users = 1000;
  options.items = 1000;
  options.events = 100'000;
  Options line(
      "generate",
      "Makes a dataset up: Zipf items, long-tailed histories, habits that can be learned.");
  line.add("output", options.output, "dataset file", Options::Need::kRequired);
  line.add("users", options.users, "number of users", 1);
  line.add("items", options.items, "number of items", 1);
  line.add("events", options.events, "number of events", 1);
  line.add("seed", options.seed, "the same seed makes the same dataset");
  if (!line.parse(arguments)) return 0;
  generate(options);
  return 0;
}

}  // namespace serrate::cli
