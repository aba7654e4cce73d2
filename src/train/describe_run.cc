#include <fmt/format.h>

#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/io/text_file.h"
#include "src/train/checkpoint_manifest.h"
#include "src/train/run_directory.h"

namespace serrate {

std::string describe_run(const std::string& directory) {
  std::string text =
      fmt::format("run {}\n\nconfiguration\n{}", directory, read_text_file(config_path(directory)));
  const ShardingPlan plan = plan_from_json(read_text_file(plan_path(directory)));
  text += fmt::format("\nplan for {} ranks\n", plan.world_size);
  for (const TableSharding& table : plan.tables) {
    text += fmt::format("  {:<24} {:<14} {} shards\n", table.table, to_string(table.type),
                        table.shards.size());
  }
  text += "\ncheckpoints\n";
  for (const FoundCheckpoint& checkpoint : list_checkpoints(checkpoint_path(directory))) {
    const Manifest manifest = read_manifest(checkpoint.path);
    std::int64_t bytes = 0;
    for (const ManifestFile& file : manifest.files) bytes += file.bytes;
    text += fmt::format("  step {:<12} {} files, {:.1f} MiB\n", manifest.step,
                        manifest.files.size(), static_cast<double>(bytes) / (1 << 20));
  }
  return text;
}

}  // namespace serrate
