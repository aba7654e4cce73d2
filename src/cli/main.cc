#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <system_error>

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

std::string help() {
  std::string text =
      "usage: serrate COMMAND [option...]\n"
      "Trains recommender models on jagged data, on any number of ranks.\n\n";
  for (const Command& command : kCommands) {
    text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  }
  return text +
         "\nserrate COMMAND --help   options of a command\n"
         "serrate --version        version\n"
         "Ranks are threads (--ranks N) or the processes of mpirun. A first model:\n\n"
         "  serrate generate --output data.h5\n"
         "  serrate train    --data data.h5 --output run --ranks 2\n"
         "  serrate evaluate --data data.h5 --model run\n";
}

int run(const Arguments& arguments) {
  if (arguments.empty()) {
    std::fputs(help().c_str(), stderr);  // exits with 2 though it cannot be written
    return 2;
  }
  const auto asks_for_help = [](std::string_view word) {
    return word == "--help" || word == "-h" || word == "help";
  };
  const std::string& first = arguments.front();
  if (asks_for_help(first)) {
    if (arguments.size() > 1 && !asks_for_help(arguments[1])) {
      return run({arguments[1], "--help"});  // help COMMAND
    }
    fmt::print("{}", help());
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
      fmt::format("no command \"{}\" (there are: {}): see serrate --help", first, names));
}

// What was printed has to have arrived.
int finish_output(int exit_code) {
  errno = 0;
  const bool arrived = std::fflush(stdout) == 0 && !std::ferror(stdout);
  if (arrived) return exit_code;
  const Error error(fmt::format("the standard output cannot be written ({})",
                                errno != 0 ? std::strerror(errno) : "an earlier write failed"));
  return exit_code == 0 ? report(error) : exit_code;
}

// What is closed gives its number to the next file that is opened, and that would get what is
// printed. Read-only, so that printing is the error that it was.
void open_standard_descriptors() {
  for (int number = 0; number <= 2; ++number) {
    if (::fcntl(number, F_GETFD) < 0) ::open("/dev/null", O_RDONLY);
  }
}

}  // namespace
}  // namespace serrate::cli

int main(int argc, char** argv) {
  serrate::cli::open_standard_descriptors();
  // A full disk, a limit or a closed pipe is an error of the write that meets it.
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  int exit_code = 0;
  try {
    exit_code = serrate::cli::run({argv + 1, argv + argc});
  } catch (const std::system_error& error) {
    if (!std::ferror(stdout)) exit_code = serrate::cli::report(error);  // not what fmt::print threw
  } catch (const std::exception& error) {
    exit_code = serrate::cli::report(error);
  }
  return serrate::cli::finish_output(exit_code);
}
