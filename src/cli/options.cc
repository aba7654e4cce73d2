#include "src/cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cctype>
#include <iomanip>
#include <sstream>

#include "src/core/option_json.h"
#include "src/io/output_file.h"
#include "src/io/text_file.h"
#include "src/run/files.h"

namespace serrate::cli {
namespace po = boost::program_options;

namespace {

std::string trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r") + 1 - begin));
}

// What follows a # is a comment, unless it is within a word.
std::string without_comment(std::string_view text) {
  for (std::size_t at = text.find('#'); at != text.npos; at = text.find('#', at + 1)) {
    if (at == 0 || text[at - 1] == ' ' || text[at - 1] == '\t') text = text.substr(0, at);
  }
  return trimmed(text);
}

// A value of a config file: as it is, or in double quotes, where \" is a quote and \\ a backslash.
std::string read_value(const std::string& place, const std::string& text) {
  if (!text.starts_with('"')) return without_comment(text);
  std::istringstream rest(text);
  std::string value, behind;
  rest >> std::quoted(value);
  const bool is_closed = !rest.eof();
  std::getline(rest, behind);
  if (!is_closed || !without_comment(behind).empty()) {
    throw usage_error(fmt::format("{}: {} has to end with its second quote", place, text));
  }
  return value;
}

// Such that read_value() gives the value back; in quotes only where it has to be.
std::string written_value(const std::string& value) {
  if (!value.starts_with('"') && without_comment(value) == value) return value;
  std::ostringstream quoted;
  quoted << std::quoted(value);
  return quoted.str();
}

// Boost puts the option's name into its message until no placeholder is left, and so without end
// when the name has one: "--%canonical_option%". No option of ours has a % in its name.
std::string message_of(const po::error& error) {
  const auto* named = dynamic_cast<const po::error_with_option_name*>(&error);
  if (!named || named->get_option_name().find('%') == std::string::npos) return error.what();
  return fmt::format("unrecognised option '{}'", named->get_option_name());
}

}  // namespace

struct Options::Impl {
  std::string command;
  std::string summary;
  std::string config;
  std::string positional;  // its name, if there is one
  std::vector<std::string> given;
  std::vector<Option> options;

  po::options_description description() const {
    po::options_description all;
    all.add_options()("help,h", "");
    for (const Option& option : options) {
      const std::string name =
          option.letter ? fmt::format("{},{}", option.name, option.letter) : option.name;
      if (option.is_list()) {
        all.add_options()(name.c_str(), po::value<std::vector<std::string>>()->multitoken());
        continue;
      }
      auto* value = po::value<std::string>();
      if (option.kind == Option::Kind::kFlag) value->implicit_value("true");
      all.add_options()(name.c_str(), value);
    }
    return all;
  }

  // Not po::notify: values are set by name, so that errors can name them.
  po::variables_map read_command_line(const Arguments& arguments) const {
    po::variables_map values;
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    const po::options_description known = description();
    po::positional_options_description positionals;
    if (!positional.empty()) positionals.add(positional.c_str(), 1);
    po::store(po::command_line_parser(arguments)
                  .options(known)
                  .positional(positionals)
                  .style(style)
                  .run(),
              values);
    return values;
  }

  void set(const po::variables_map& values) {
    for (Option& option : options) {
      if (!values.count(option.name)) continue;
      const po::variable_value& value = values[option.name];
      option.set(option.is_list()
                     ? fmt::format("{}", fmt::join(value.as<std::vector<std::string>>(), ","))
                     : value.as<std::string>());
      given.push_back(option.name);
    }
  }

  // Throws Error (usage) that begins with the file.
  void read_config() {
    const std::string text = read_text_file(config);
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    if (first == std::string::npos || text[first] != '{') {
      read_config_lines(text);
      return;
    }
    std::vector<std::string> found;
    read_option_values(text, config, [&](const std::string& name, const std::string& value) {
      set_from_config(config, name, value, found);
    });
  }

  void read_config_lines(const std::string& text) {
    std::vector<std::string> found;
    std::istringstream lines(text);
    std::int64_t number = 0;
    for (std::string line; std::getline(lines, line);) {
      const std::string place = fmt::format("{}:{}", config, ++number);
      const std::string stripped = without_comment(line);
      if (stripped.empty()) continue;
      const std::size_t equals = line.find('=');
      if (stripped.find('=') == stripped.npos) {
        throw usage_error(fmt::format("{}: \"{}\" is not name=value", place, stripped));
      }
      set_from_config(place, trimmed(line.substr(0, equals)),
                      read_value(place, trimmed(line.substr(equals + 1))), found);
    }
  }

  // The command line goes first. `found` are the names so far in the file.
  void set_from_config(const std::string& place, const std::string& name, const std::string& value,
                       std::vector<std::string>& found) {
    const auto option = std::ranges::find(options, name, &Option::name);
    if (option == options.end() || name == "config") {
      throw usage_error(
          fmt::format("{}: \"{}\" is not an option of serrate {}", place, name, command));
    }
    if (std::ranges::count(found, name) > 0) {
      throw usage_error(fmt::format("{}: \"{}\" appears for the second time", place, name));
    }
    found.push_back(name);
    if (is_given(name)) return;
    try {
      option->set(value);
    } catch (const Error& error) {
      throw usage_error(fmt::format("{}: {}", place, error.what()));
    }
    given.push_back(name);
  }

  bool is_given(const std::string& name) const { return std::ranges::count(given, name) > 0; }

  std::string shown(const Option& option) const {
    if (option.name != positional) return fmt::format("--{}", option.name);
    std::string upper = option.name;
    std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return std::toupper(c); });
    return upper;
  }

  // No command writes over what it reads, nor over a run.
  void check_files() const {
    std::vector<NamedPath> inputs, outputs;
    for (const Option& option : options) {
      if (option.file == Option::File::kNone) continue;
      for (const std::string& path :
           option.is_list() ? split_list(option.text()) : std::vector{option.text()}) {
        (option.file == Option::File::kInput ? inputs : outputs).push_back({shown(option), path});
      }
    }
    check_outputs(inputs, outputs);
    for (const NamedPath& output : outputs) check_outside_runs(output);
  }

  std::string usage() const {
    constexpr std::size_t kHelpColumn = 33;
    std::string positionals, lines;
    for (const Option& option : options) {
      if (option.name == positional) {
        positionals = fmt::format(" {}", shown(option));
        continue;
      }
      const std::string letter = option.letter ? fmt::format("-{}, ", option.letter) : "";
      const std::string value = option.text();
      const std::string preset = option.is_required ? " (required)"
                                 : value.empty() || option.kind == Option::Kind::kFlag
                                     ? ""
                                     : fmt::format(" [{}]", value);
      const std::string left = fmt::format("  {}{} {}", letter, shown(option), option.takes);
      lines += left.size() < kHelpColumn ? fmt::format("{:<{}}", left, kHelpColumn)
                                         : fmt::format("{}\n{:<{}}", left, "", kHelpColumn);
      lines += fmt::format("{}{}\n", option.help, preset);
    }
    return fmt::format("usage: serrate {}{} [option...]\n{}\n\n{}", command, positionals, summary,
                       lines);
  }
};

Options::Options(std::string command, std::string summary) : impl_(std::make_unique<Impl>()) {
  impl_->command = std::move(command);
  impl_->summary = std::move(summary);
  add(option("config", impl_->config,
             "file of name=value lines or JSON; the command line goes first")
          .input());
}

Options::~Options() = default;

void Options::add(Option option) {
  impl_->options.push_back(std::move(option));
}

void Options::add(std::vector<Option> table) {
  for (Option& option : table) add(std::move(option));
}

void Options::add_positional(const std::string& name, std::string& target) {
  impl_->positional = name;
  add(option(name, target, "").required());
}

bool Options::parse(const Arguments& arguments) {
  const std::string see = fmt::format("; see serrate {} --help", impl_->command);
  impl_->given.clear();
  try {
    const po::variables_map values = impl_->read_command_line(arguments);
    if (values.count("help")) {
      fmt::print("{}", impl_->usage());
      return false;
    }
    impl_->set(values);
  } catch (const po::error& error) {
    throw usage_error(message_of(error) + see);
  }
  if (!impl_->config.empty()) impl_->read_config();
  for (const Option& option : impl_->options) {
    if (option.is_required && (!is_given(option.name) || option.text().empty())) {
      throw usage_error(fmt::format("{} is missing{}", impl_->shown(option), see));
    }
  }
  impl_->check_files();
  return true;
}

bool Options::is_given(const std::string& name) const {
  return impl_->is_given(name);
}

std::string Options::effective() const {
  std::string lines;
  for (const Option& option : impl_->options) {
    if (option.name == "config") continue;
    lines += fmt::format("{}={}\n", option.name, written_value(option.text()));
  }
  return lines;
}

}  // namespace serrate::cli
