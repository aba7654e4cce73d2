#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/data/describe_dataset.h"
#include "src/io/text_file.h"

namespace serrate::cli {
namespace {

bool looks_like_json(const std::string& path) {
  std::ifstream file(path);
  char first = 0;
  return file >> first && first == '{';
}

std::string describe_plan(const ShardingPlan& plan) {
  std::map<int, std::int64_t> values;  // by rank
  std::string text = fmt::format("plan for {} ranks\n", plan.world_size);
  if (const auto& from = plan.provenance) {
    text +=
        fmt::format("made by serrate {}: {} {:.4f} ms by {}, no plan below {:.4f} ms\n",
                    from->serrate, from->objective, from->cost_ms, from->estimator, from->bound_ms);
  }
  text += fmt::format("\n{:<16}{:<16}{:>6}{:>24}{:>16}\n", "table", "sharding", "rank", "rows",
                      "columns");
  for (const TableSharding& table : plan.tables) {
    for (const Shard& shard : table.shards) {
      text += fmt::format("{:<16}{:<16}{:>6}{:>24}{:>16}\n", table.table, to_string(table.type),
                          shard.rank, fmt::format("{}..{}", shard.row_begin, shard.row_end),
                          fmt::format("{}..{}", shard.column_begin, shard.column_end));
      values[shard.rank] += shard.num_rows() * shard.num_columns();
    }
  }
  text += fmt::format("\n{:<6}{:>16}\n", "rank", "weights MiB");
  for (const auto& [rank, count] : values) {
    text += fmt::format("{:<6}{:>16.2f}\n", rank,
                        static_cast<double>(count) * sizeof(float) / (1 << 20));
  }
  return text;
}

}  // namespace

int inspect_command(const Arguments& arguments) {
  std::string path;
  Options line("inspect", "Shows what is in a dataset, a run directory or a sharding plan.");
  line.add_positional("path", path);
  if (!line.parse(arguments)) return 0;
  if (std::filesystem::is_directory(path)) {
    const RunReport report = describe_run(path);
    fmt::print("{}", report.text);
    if (report.num_intact == 0 || report.num_damaged > 0) {
      throw Error(report.num_intact == 0 ? fmt::format("{} holds no intact checkpoint", path)
                                         : fmt::format("{}: {} of what it holds is damaged", path,
                                                       report.num_damaged));
    }
  } else if (looks_like_json(path)) {
    fmt::print("{}", describe_plan(plan_from_json(read_text_file(path))));
  } else {
    fmt::print("{}", describe_dataset(path));
  }
  return 0;
}

}  // namespace serrate::cli
