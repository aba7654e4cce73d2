#include <fmt/format.h>

#include <filesystem>

#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/manifest.h"
#include "src/checkpoint/rank_file.h"
#include "src/io/text_file.h"
#include "src/run/checkpoint.h"
#include "src/run/config.h"
#include "src/run/directory.h"

namespace serrate {
namespace {

std::string describe_plan(const std::string& directory) {
  const ShardingPlan plan = plan_from_json(read_text_file(plan_path(directory), kind_of_damage));
  std::string text = fmt::format("\nplan of the latest start, for {} ranks\n", plan.world_size);
  for (const TableSharding& table : plan.tables) {
    text += fmt::format("  {:<24} {:<14} {} shards\n", table.table, to_string(table.type),
                        table.shards.size());
  }
  return text;
}

std::string describe_manifest(const Manifest& manifest) {
  std::string text = "\ntables\n";
  for (const ManifestTable& table : manifest.tables) {
    text += fmt::format("  {:<24} {} x {}, {}\n", table.name, table.num_rows, table.dim,
                        to_string(table.data_type));
  }
  std::int64_t dense = 0;
  for (const ManifestTensor& tensor : manifest.tensors) dense += tensor.rows * tensor.columns;
  text += fmt::format("  {} and {} values of {} dense tensors\n", to_string(manifest.optimizer),
                      dense, manifest.tensors.size());
  text += "\nsaved with\n";
  for (const auto& [name, value] : manifest.integers)
    text += fmt::format("  {}: {}\n", name, value);
  for (const auto& [name, value] : manifest.texts) text += fmt::format("  {}: {}\n", name, value);
  return text;
}

/// Throws on what says nothing about the file: a lack of descriptors, permissions or memory.
void check_is_damage(const Error& error) {
  if (error.kind() != ErrorKind::kUsage) throw Error(error);
}

/// The checkpoints, newest first, then what the newest intact one says. Returns false when none
/// that was listed is intact and one went away: a training has newer ones.
bool describe_checkpoints(const std::string& directory, RunReport& report) {
  report = {};
  std::string checkpoints, newest;
  bool went_away = false;
  for (const FoundCheckpoint& found : list_checkpoints(checkpoint_path(directory))) {
    try {
      const Manifest manifest = read_manifest(found.path, found.step);
      verify_checkpoint(found.path, manifest);
      std::int64_t bytes = 0;
      for (const ManifestFile& file : manifest.files) bytes += file.bytes;
      checkpoints += fmt::format("  step {:<12} intact: {} files, {:.1f} MiB\n", found.step,
                                 manifest.files.size(), static_cast<double>(bytes) / (1 << 20));
      if (newest.empty()) newest = describe_manifest(manifest);
      report.num_intact += 1;
    } catch (const Error& error) {
      if (!std::filesystem::exists(std::filesystem::symlink_status(found.path))) {
        went_away = true;
        continue;
      }
      check_is_damage(error);
      checkpoints += fmt::format("  step {:<12} DAMAGED: {}\n", found.step, error.what());
      report.num_damaged += 1;
    }
  }
  if (checkpoints.empty()) checkpoints = "  none\n";
  report.text =
      fmt::format("run {}\n\ncheckpoints, every byte read\n{}{}", directory, checkpoints, newest);
  return report.num_intact > 0 || !went_away;
}

}  // namespace

RunReport describe_run(const std::string& directory) {
  constexpr int kMostLooks = 20;
  RunReport report;
  for (int look = 0; look < kMostLooks; ++look) {
    if (describe_checkpoints(directory, report)) break;
  }
  for (const auto& [path, show] :
       {std::pair{config_path(directory),
                  +[](const std::string& d) {
                    train_options_from_json(read_text_file(config_path(d), kind_of_damage),
                                            config_path(d));
                    return std::string();
                  }},
        std::pair{plan_path(directory), +[](const std::string& d) { return describe_plan(d); }}}) {
    try {
      report.text += show(directory);
    } catch (const Error& error) {
      check_is_damage(error);
      report.text += fmt::format("\n{} is DAMAGED: {}\n", path, error.what());
      report.num_damaged += 1;
    }
  }
  return report;
}

}  // namespace serrate
