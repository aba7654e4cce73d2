#include "src/run/files.h"

#include <fmt/format.h>

#include <filesystem>
#include <vector>

#include "serrate/error.h"
#include "src/checkpoint/folder.h"
#include "src/run/directory.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

// Files of checkpoints, and the folder they are in, which need not be there yet.
void check_outside_checkpoints(const NamedPath& output, const std::string& run) {
  std::error_code none;
  const fs::path checkpoints = checkpoint_path(run);
  const fs::path target = fs::weakly_canonical(fs::absolute(follow_links(output.path)), none);
  const fs::path to_be_made = fs::weakly_canonical(fs::absolute(checkpoints), none);
  for (fs::path folder = target.parent_path();; folder = folder.parent_path()) {
    if (folder == to_be_made || fs::equivalent(folder, checkpoints, none)) {
      throw usage_error(fmt::format("{} {} is among the checkpoints in {} (name another)",
                                    output.name, output.path, checkpoints.string()));
    }
    if (!folder.has_relative_path()) break;
  }
  std::vector<NamedPath> files;
  for (auto file = fs::recursive_directory_iterator(checkpoints, none);
       file != fs::recursive_directory_iterator(); file.increment(none)) {
    if (file->is_regular_file(none)) files.push_back({"the checkpoints'", file->path().string()});
  }
  check_outputs(files, {&output, 1});
}

/// The run that has, or would have, this file: one of its checkpoints', or its configuration, plan
/// or metrics. Empty when there is none, or nothing that it would lose.
fs::path run_of(const std::string& path) {
  std::error_code none;
  const fs::path target = fs::weakly_canonical(fs::absolute(follow_links(path)), none);
  for (fs::path folder = target.parent_path();; folder = folder.parent_path()) {
    const bool is_kept = target == config_path(folder) || target == plan_path(folder) ||
                         target == metrics_path(folder) ||
                         target.string().starts_with(checkpoint_path(folder) + "/");
    if (is_kept && !list_checkpoints(checkpoint_path(folder)).empty()) return folder;
    if (!folder.has_relative_path()) return {};
  }
}

void check_outside_runs(const NamedPath& output, const std::string& own_run) {
  const fs::path run = run_of(output.path);
  std::error_code none;
  if (run.empty() || fs::equivalent(run, own_run, none)) return;
  throw usage_error(fmt::format("{} {} is a file of the run in {} (name another)", output.name,
                                output.path, run.string()));
}

}  // namespace

void check_outside_runs(const NamedPath& output) {
  if (!output.path.empty()) check_outside_runs(output, "");
}

void check_files(const TrainOptions& o) {
  const std::string metrics = o.metrics.empty() ? metrics_path(o.output) : o.metrics;
  const std::vector<NamedPath> inputs{{"--data", o.data}, {"--topology", o.topology}};
  const std::vector<NamedPath> outputs{{"the run's", config_path(o.output)},
                                       {"the run's", plan_path(o.output)},
                                       {"--metrics", metrics}};
  check_outputs(inputs, outputs);
  // The run's own plan may be given to it again; it is written as it was read.
  const std::vector<NamedPath> plan{{"--plan", o.plan == "auto" ? "" : o.plan}};
  check_outputs(plan, {&outputs.back(), 1});
  check_outside_checkpoints(outputs.back(), o.output);
  check_outside_runs(outputs.back(), o.output);
}

}  // namespace serrate
