#include <fmt/format.h>

#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/io/output_file.h"
#include "src/io/text_file.h"
#include "src/run/options.h"

namespace serrate::cli {
namespace {

void print_table(const EvaluationResult& result) {
  fmt::print("{:<12}", fmt::format("{} users", result.users));
  for (const auto& [metric, value] : result.scorers.front().second) fmt::print("{:>10}", metric);
  for (const auto& [scorer, metrics] : result.scorers) {
    fmt::print("\n{:<12}", scorer);
    for (const auto& [metric, value] : metrics) fmt::print("{:>10.4f}", value);
  }
  fmt::print("\n");
  if (result.users_left_out > 0) {
    fmt::print("users left out: {} (an invalid target or no valid history)\n",
               result.users_left_out);
  }
}

}  // namespace

int evaluate_command(const Arguments& arguments) {
  EvaluateOptions options;
  LaunchOptions launch_options;
  std::string json;
  Options line("evaluate",
               "Ranks all items for what a run held out; prints HR@K and NDCG@K beside baselines.");
  line.add(option_table(options));
  line.add(option("json", json, "file to write the result to, as JSON").output());
  add_launch_options(line, launch_options);
  if (!line.parse(arguments)) return 0;

  launch_options.threads = options.threads;
  launch_options.device = options.device;
  return launch(launch_options, [&](Communicator& communicator) {
    const bool speaks = communicator.rank() == 0;
    if (speaks && !json.empty()) check_writable(json);  // before the work
    const EvaluationResult result = evaluate(options, communicator);
    if (speaks && !json.empty()) write_text_file(json, to_json(result));
    if (speaks) {
      fmt::print("# device={} precision={}\n\n", result.device, to_string(result.precision));
      print_table(result);
    }
    return 0;
  });
}

}  // namespace serrate::cli
