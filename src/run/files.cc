#include "src/run/files.h"

#include <fmt/format.h>

#include <filesystem>
#include <vector>

#include "serrate/error.h"
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

}  // namespace

void check_outside_run(const NamedPath& output, const std::string& run) {
  if (output.path.empty()) return;
  const NamedPath files[] = {{"the run's", config_path(run)},
                             {"the run's", plan_path(run)},
                             {"the run's", metrics_path(run)}};
  check_outputs(files, {&output, 1});
  check_outside_checkpoints(output, run);
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
}

}  // namespace serrate
