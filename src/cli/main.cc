#include <fmt/format.h>

#include <array>
#include <string_view>

#include "src/cli/commands.h"
#include "src/cli/launch.h"

namespace serrate::cli {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(const Arguments&);
};

constexpr std::array kCommands{
    Command{"convert", "makes a dataset of delimited text", convert_command},
    Command{"generate", "makes a dataset that a model can learn", generate_command},
    Command{"calibrate", "measures these machines for the planner", calibrate_command},
    Command{"plan", "says where every table of a model should live", plan_command},
    Command{"train", "trains a sequence model on a dataset", train_command},
    Command{"evaluate", "measures a trained model beside baselines", evaluate_command},
    Command{"inspect", "shows what is in a dataset, a run or a plan", inspect_command},
};

void print_help() {
  fmt::print(
      "usage: serrate COMMAND [option...]\n"
      "Trains recommender models on jagged data, on any number of ranks.\n\n");
  for (const Command& command : kCommands) {
    fmt::print("  {:<10} {}\n", command.name, command.summary);
  }
  fmt::print(
      "\nserrate COMMAND --help   options of a command\n"
      "serrate --version        version\n"
      "Ranks are threads (--ranks N) or the processes of mpirun.\n");
}

int run(const Arguments& arguments) {
  const std::string first = arguments.empty() ? "" : arguments.front();
  if (first == "--help" || first == "help") {
    print_help();
    return 0;
  }
  if (first == "--version") {
    fmt::print("serrate {}\n", SERRATE_VERSION);
    return 0;
  }
  std::string names;
  for (const Command& command : kCommands) {
    if (first == command.name) return command.run({arguments.begin() + 1, arguments.end()});
    names += fmt::format("{}{}", names.empty() ? "" : ", ", command.name);
  }
  throw usage_error(
      fmt::format("no command \"{}\" (there are: {}) see serrate --help", first, names));
}

}  // namespace
}  // namespace serrate::cli

int main(int argc, char** argv) {
  try {
    return serrate::cli::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    return serrate::cli::report(error);
  }
}
