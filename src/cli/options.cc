#include "src/cli/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fstream>

namespace serrate::cli {
namespace po = boost::program_options;

namespace {

struct Option {
  std::string name;
  std::string shown;  // --name, or NAME when positional
  std::string takes;  // what the help shows for the value; empty when --name alone will do
  std::string help;
  std::string value;  // the default, until parse()
  std::function<void(const std::string&)> set;
  Options::Need need;
  bool is_list = false;
};

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

struct Options::Impl {
  std::string command;
  std::string summary;
  std::string config;
  std::vector<std::string> given;
  std::vector<Option> options;
  po::options_description description;
  po::positional_options_description positional;

  // What one source says. Not po::notify: values are set by name, so that errors can name them.
  po::variables_map read_command_line(const Arguments& arguments) const {
    po::variables_map values;
    const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(arguments)
                  .options(description)
                  .positional(positional)
                  .style(style)
                  .run(),
              values);
    return values;
  }

  po::variables_map read_config(const std::string& path) const {
    std::ifstream file(path);
    if (!file) {
      throw usage_error(
          fmt::format("--config {} (it cannot be read) give a file of name=value lines", path));
    }
    po::variables_map values;
    po::store(po::parse_config_file(file, description), values);
    return values;
  }

  void set(const po::variables_map& values) {
    for (Option& option : options) {
      if (!values.count(option.name) || std::ranges::count(given, option.name)) continue;
      const po::variable_value& value = values[option.name];
      option.value = option.is_list
                         ? fmt::format("{}", fmt::join(value.as<std::vector<std::string>>(), ","))
                         : value.as<std::string>();
      option.set(option.value);
      given.push_back(option.name);
    }
  }

  std::string usage() const {
    std::string positionals, lines;
    for (const Option& option : options) {
      if (!option.shown.starts_with("-")) {
        positionals += " " + option.shown;
        continue;
      }
      lines += fmt::format("  {:<30} {}", option.shown + " " + option.takes, option.help);
      lines += option.value.empty() ? "\n" : fmt::format(" [{}]\n", option.value);
    }
    return fmt::format("usage: serrate {}{} [option...]\n{}\n\n{}", command, positionals, summary,
                       lines);
  }
};

Options::Options(std::string command, std::string summary) : impl_(std::make_unique<Impl>()) {
  impl_->command = std::move(command);
  impl_->summary = std::move(summary);
  impl_->description.add_options()("help", "");
  add("config", impl_->config, "file of name=value lines; the command line goes first");
}

Options::~Options() = default;

void Options::add_value(const std::string& name, const std::string& value_name,
                        const std::string& preset, const std::string& help, Set set, Need need) {
  auto* value = po::value<std::string>();
  if (value_name.empty()) value->implicit_value("true");
  impl_->description.add_options()(name.c_str(), value);
  const std::string long_name = name.substr(0, name.find(','));
  const std::string short_name =
      long_name == name ? "" : fmt::format("-{}, ", name.substr(long_name.size() + 1));
  impl_->options.push_back(
      {long_name, short_name + "--" + long_name, value_name, help, preset, std::move(set), need});
}

void Options::add_list(const std::string& name, const std::string& value_name,
                       const std::string& preset, const std::string& help, Set set) {
  impl_->description.add_options()(name.c_str(),
                                   po::value<std::vector<std::string>>()->multitoken());
  impl_->options.push_back(
      {name, "--" + name, value_name, help, preset, std::move(set), Need::kOptional, true});
}

void Options::add(const std::string& name, std::string& target, const std::string& help,
                  Need need) {
  add_value(name, "TEXT", target, help, [&](const std::string& text) { target = text; }, need);
}

void Options::add(const std::string& name, std::vector<std::string>& target,
                  const std::string& help) {
  add_list(name, "A,B,..", fmt::format("{}", fmt::join(target, ",")), help,
           [&](const std::string& text) { target = split(text); });
}

void Options::add(const std::string& name, std::vector<std::int64_t>& target,
                  const std::string& help) {
  add_list(name, "N,N,..", fmt::format("{}", fmt::join(target, ",")), help,
           [&, name](const std::string& text) {
             target.clear();
             for (const std::string& part : split(text)) {
               target.push_back(parse_integer(name, part, 1, kMostInt64));
             }
             if (target.empty()) throw bad_value(name, text, "whole numbers such as 5,10");
           });
}

void Options::add(const std::string& name, bool& target, const std::string& help) {
  add_value(name, "", target ? "true" : "false", help, [&, name](const std::string& text) {
    if (text != "true" && text != "false") throw bad_value(name, text, "true or false");
    target = text == "true";
  });
}

void Options::add(const std::string& name, std::chrono::milliseconds& target,
                  const std::string& help) {
  add_value(
      name, "TIME", fmt::format("{}ms", target.count()), help, [&, name](const std::string& text) {
        const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
        const std::string unit = text.substr(digits);
        const std::int64_t factor = unit == "ms"    ? 1
                                    : unit == "s"   ? 1000
                                    : unit == "min" ? 60'000
                                                    : 0;
        if (factor == 0 || digits == 0)
          throw bad_value(name, text, "a time such as 500ms, 30s, 5min");
        target = std::chrono::milliseconds(
            factor * parse_integer(name, text.substr(0, digits), 1, 1'000'000'000));
      });
}

void Options::add_positional(const std::string& name, std::string& target) {
  impl_->description.add_options()(name.c_str(), po::value<std::string>());
  impl_->positional.add(name.c_str(), 1);
  std::string shown = name;
  std::ranges::transform(shown, shown.begin(), [](unsigned char c) { return std::toupper(c); });
  impl_->options.push_back(
      {name, shown, "", "", "", [&](const std::string& text) { target = text; }, Need::kRequired});
}

bool Options::parse(const Arguments& arguments) {
  const std::string see = fmt::format(" see serrate {} --help", impl_->command);
  std::string source;
  impl_->given.clear();
  try {
    const po::variables_map values = impl_->read_command_line(arguments);
    if (values.count("help")) {
      fmt::print("{}", impl_->usage());
      return false;
    }
    impl_->set(values);
    if (!impl_->config.empty()) {
      source = impl_->config + ": ";
      impl_->set(impl_->read_config(impl_->config));
    }
  } catch (const po::error& error) {
    throw usage_error(source + error.what() + see);
  }
  for (const Option& option : impl_->options) {
    if (option.need == Need::kRequired && !is_given(option.name)) {
      throw usage_error(fmt::format("{} is missing{}", option.shown, see));
    }
  }
  return true;
}

bool Options::is_given(const std::string& name) const {
  return std::ranges::count(impl_->given, name) > 0;
}

std::string Options::effective() const {
  std::string lines;
  for (const Option& option : impl_->options) {
    if (option.name != "config") lines += fmt::format("{}={}\n", option.name, option.value);
  }
  return lines;
}

std::int64_t Options::parse_integer(const std::string& name, const std::string& text,
                                    std::int64_t least, std::int64_t most) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw bad_value(name, text,
                    most == kMostInt64 ? fmt::format("a whole number from {}", least)
                                       : fmt::format("a whole number from {} to {}", least, most));
  }
  return value;
}

double Options::parse_number(const std::string& name, const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0) ||
      std::isinf(value)) {
    throw bad_value(name, text, "a number from 0");
  }
  return value;
}

std::string Options::format_number(float value) {
  return fmt::format("{}", value);
}
std::string Options::format_number(double value) {
  return fmt::format("{}", value);
}

Error Options::bad_value(const std::string& name, const std::string& text,
                         const std::string& takes) {
  return usage_error(fmt::format("--{} \"{}\" (takes {})", name, text, takes));
}

}  // namespace serrate::cli
