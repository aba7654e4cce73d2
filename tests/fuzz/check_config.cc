#include "tests/fuzz/check_config.h"

#include <sstream>

#include "serrate/error.h"
#include "serrate/trainer.h"
#include "src/cli/options.h"
#include "src/run/config.h"
#include "src/run/options.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/verdict.h"

namespace serrate {
namespace {

std::string parsed(const cli::Arguments& arguments) {
  TrainOptions options;
  cli::Options line("train", "");
  line.add(option_table(options));
  if (!line.parse(arguments)) throw usage_error("-h asks for help");
  return line.effective();
}

std::string parsed_file(const std::string& text) {
  MemoryFile file;
  file.write(text);
  return parsed({"--config", file.path()});
}

std::string json_again(const std::string& text) {
  return to_json(train_options_from_json(text));
}

/// No files of this machine, and no help on stdout.
bool is_tame(const std::string& text) {
  return text.find("config") == text.npos && text.find("help") == text.npos;
}

}  // namespace

void check_config(const std::string& input) {
  if (input.empty()) return;
  const std::string text = input.substr(1);
  switch (input[0]) {
    case 'j':
      check_reader([&] { return json_again(text); }, json_again);
      break;
    case 'f':
      check_reader([&] { return parsed_file(text); }, parsed_file);
      break;
    case 'a':
      if (is_tame(text)) {
        cli::Arguments arguments;
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) arguments.push_back(line);
        check_reader([&] { return parsed(arguments); }, parsed_file);
      }
      break;
    default:
      break;
  }
}

}  // namespace serrate
