#pragma once

#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "serrate/error.h"

namespace serrate::cli {

/// What follows the name of a command.
using Arguments = std::vector<std::string>;

/// The options of one command. Each is declared once, with the variable it sets: what that holds
/// when it is declared is the default. A value is taken from the command line, or else from the
/// name=value lines of `--config FILE`.
class Options {
 public:
  enum class Need { kOptional, kRequired };

  Options(std::string command, std::string summary);
  ~Options();

  /// `name` may have a letter for short: "output,o".
  void add(const std::string& name, std::string& target, const std::string& help,
           Need need = Need::kOptional);
  /// Lists: values separated by commas or spaces, or the option several times.
  void add(const std::string& name, std::vector<std::string>& target, const std::string& help);
  void add(const std::string& name, std::vector<std::int64_t>& target, const std::string& help);
  /// `--name` alone means true.
  void add(const std::string& name, bool& target, const std::string& help);
  /// Such as 500ms, 30s or 5min.
  void add(const std::string& name, std::chrono::milliseconds& target, const std::string& help);
  /// A whole number, at least `least`.
  template <std::integral T>
  void add(const std::string& name, T& target, const std::string& help, std::int64_t least = 0) {
    constexpr auto kMost = std::cmp_less(std::numeric_limits<T>::max(), kMostInt64)
                               ? static_cast<std::int64_t>(std::numeric_limits<T>::max())
                               : kMostInt64;
    add_value(name, "N", std::to_string(target), help, [=, &target](const std::string& text) {
      target = static_cast<T>(parse_integer(name, text, least, kMost));
    });
  }
  /// A number that is not negative.
  template <std::floating_point T>
  void add(const std::string& name, T& target, const std::string& help) {
    add_value(name, "X", format_number(target), help, [=, &target](const std::string& text) {
      const double number = parse_number(name, text);
      target = static_cast<T>(number);
      const bool is_kept = std::isfinite(target) && (target != 0 || number == 0);
      if (!is_kept) throw bad_value(name, text, "a number of ordinary size");
    });
  }
  /// One of a few words: `words` as the help shows them, `from_string` reads one or throws Error.
  template <typename T>
  void add(const std::string& name, T& target, const std::string& help, const std::string& words,
           T (*from_string)(const std::string&)) {
    add_value(name, words, to_string(target), help, [=, &target](const std::string& text) {
      try {
        target = from_string(text);
      } catch (const Error& error) {
        throw bad_value(name, text, words);
      }
    });
  }
  /// The value without a name that the command needs.
  void add_positional(const std::string& name, std::string& target);

  /// Sets what was declared. False when --help was asked for and printed: nothing is left to do.
  /// Throws Error (usage) naming the option and what it takes.
  bool parse(const Arguments& arguments);
  /// Whether parse() found it.
  bool is_given(const std::string& name) const;
  /// All options as name=value lines: what --config reads.
  std::string effective() const;

 private:
  static constexpr std::int64_t kMostInt64 = std::numeric_limits<std::int64_t>::max();
  using Set = std::function<void(const std::string&)>;

  void add_value(const std::string& name, const std::string& value_name, const std::string& preset,
                 const std::string& help, Set set, Need need = Need::kOptional);
  void add_list(const std::string& name, const std::string& value_name, const std::string& preset,
                const std::string& help, Set set);
  static std::int64_t parse_integer(const std::string& name, const std::string& text,
                                    std::int64_t least, std::int64_t most);
  static double parse_number(const std::string& name, const std::string& text);
  static std::string format_number(float value);
  static std::string format_number(double value);
  static Error bad_value(const std::string& name, const std::string& text,
                         const std::string& takes);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate::cli
