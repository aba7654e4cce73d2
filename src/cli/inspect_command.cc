#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "serrate/planner.h"
#include "serrate/sharding_plan.h"
#include "serrate/trainer.h"
#include "src/cli/commands.h"
#include "src/core/json.h"
#include "src/data/describe_dataset.h"
#include "src/io/text_file.h"
#include "src/run/config.h"

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
  text += fmt::format("\n{:<6}{:>16}\n", "rank", "million weights");
  for (const auto& [rank, count] : values) {
    text += fmt::format("{:<6}{:>16.3f}\n", rank, static_cast<double>(count) / 1e6);
  }
  return text;
}

std::string describe_topology(const PlannerTopology& t) {
  return fmt::format("topology of {} ranks, {} a node\n\n{}", t.world_size, t.ranks_per_node,
                     planner_topology_to_json(t));
}

std::string describe_model(const PlannerModel& model) {
  std::string text = fmt::format("planner's model: {} samples a rank, {} tables\n\n",
                                 model.batch_size, model.tables.size());
  text += fmt::format("{:<24}{:>16}{:>8}{:>10}\n", "table", "rows", "dim", "features");
  for (const PlannerTable& table : model.tables) {
    text += fmt::format("{:<24}{:>16}{:>8}{:>10}\n", table.name, table.num_rows, table.dim,
                        table.features.size());
  }
  return text;
}

// The document that has such fields; an error in it is told by its own reader.
std::string describe_json(const std::string& path) {
  const nlohmann::json json = parse_json(read_text_file(path), path);
  const JsonField root(json, path);
  if (root.find("tables")) {
    return root.find("world_size") ? describe_plan(read_text_file(path, plan_from_json))
                                   : describe_model(read_text_file(path, planner_model_from_json));
  }
  if (root.find("world_size")) {
    return describe_topology(read_text_file(path, planner_topology_from_json));
  }
  if (root.find("batch-size")) {
    return "options of a run\n\n" + to_json(train_options_from_json(read_text_file(path), path));
  }
  root.fail("is neither a plan, a planner's model, a topology nor the options of a run");
}

}  // namespace

int inspect_command(const Arguments& arguments) {
  std::string path;
  Options line("inspect",
               "Shows what is in a dataset, a run directory, a plan or another file of ours, and "
               "whether it is intact.");
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
    fmt::print("{}", describe_json(path));
  } else {
    fmt::print("{}", describe_dataset(path));
  }
  return 0;
}

}  // namespace serrate::cli
