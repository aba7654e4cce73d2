#include <fmt/format.h>

#include <fstream>
#include <optional>

#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/launch.h"
#include "src/io/atomic_file.h"
#include "src/train/train_options.h"

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
}

void write_json(AtomicFile& json, const EvaluationResult& result) {
  std::ofstream file(json.temporary_path());
  file << to_json(result);
  if (!file.flush()) throw Error(fmt::format("--json {} (it cannot be written)", json.path()));
  file.close();
  json.commit();
}

}  // namespace

int evaluate_command(const Arguments& arguments) {
  EvaluateOptions options;
  LaunchOptions launch_options;
  std::string json;
  Options line("evaluate",
               "Ranks all items for what a run held out; prints HR@K and NDCG@K beside baselines.");
  line.add(option_table(options));
  line.add(option("json", json, "file for the result"));
  add_launch_options(line, launch_options);
  if (!line.parse(arguments)) return 0;

  launch_options.threads = options.threads;
  return launch(launch_options, [&](Communicator& communicator) {
    const bool speaks = communicator.rank() == 0;
    std::optional<AtomicFile> file;  // made before the work, so that a wrong path is told at once
    if (speaks && !json.empty()) file.emplace(json);
    const EvaluationResult result = evaluate(options, communicator);
    if (speaks) print_table(result);
    if (file) write_json(*file, result);
    return 0;
  });
}

}  // namespace serrate::cli
