#pragma once

#include <memory>
#include <string>
#include <vector>

#include "src/core/option.h"

namespace serrate::cli {

/// What follows the name of a command.
using Arguments = std::vector<std::string>;

/// The options of one command. A value is taken from the command line, or else from the file of
/// `--config`: name=value lines, or JSON such as a run's config.json.
class Options {
 public:
  Options(std::string command, std::string summary);
  ~Options();

  void add(Option option);
  void add(std::vector<Option> table);
  /// The value without a name that the command needs.
  void add_positional(const std::string& name, std::string& target);

  /// Sets what was added. False when --help was asked for and printed: nothing is left to do.
  /// Throws Error (usage) naming the option and what it takes.
  bool parse(const Arguments& arguments);
  /// Whether parse() found it.
  bool is_given(const std::string& name) const;
  /// All options as name=value lines: what --config reads.
  std::string effective() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate::cli
