#include "src/data/generate.h"

#include "src/cli/commands.h"
#include "src/cli/stop_signals.h"
#include "src/io/atomic_file.h"

namespace serrate::cli {

int generate_command(const Arguments& arguments) {
  constexpr std::int64_t kMost = 1'000'000'000'000;
  GenerateOptions options;
  options.users = 1000;
  options.items = 1000;
  options.events = 100'000;
  Options line(
      "generate",
      "Makes a dataset up: Zipf items, long-tailed histories, habits that can be learned.");
  line.add(option("output", options.output, "dataset file").required().output());
  line.add(option("users", options.users, "number of users", {1, kMost}));
  line.add(option("items", options.items, "number of items", {1, kMost}));
  line.add(option("events", options.events, "number of events", {1, kMost}));
  line.add(option("seed", options.seed, "the same seed makes the same dataset"));
  if (!line.parse(arguments)) return 0;
  remove_on_stop_signals(temporary_path_of(options.output));
  generate(options);
  return 0;
}

}  // namespace serrate::cli
