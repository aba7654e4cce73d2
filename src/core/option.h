#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "serrate/error.h"

namespace serrate {

/// What a run that goes on may do with an option.
enum class OnResume {
  kMayChange,
  kMustMatch,                  ///< it decides the model or the order of the data
  kMustMatchWhenReproducible,  ///< it decides how sums are rounded
};

/// One option: its name, what it may be, and the field it sets. The command line, configuration
/// files, checks of ranges and comparisons of runs all go by lists of these. It lives no longer
/// than its field; what that holds when the option is made is the default.
struct Option {
  enum class Kind { kText, kNumber, kFlag, kTexts, kNumbers };  ///< what it is in JSON

  std::string name;   ///< "batch-size"
  std::string takes;  ///< what the help shows for the value: "N", "latest|all"; empty for a flag
  std::string help;
  Kind kind = Kind::kText;
  /// What the field holds, as a user would write it; set(text()) keeps it, to the bit.
  std::function<std::string()> text;
  /// Throws Error (usage) that names the option and what it takes.
  std::function<void(const std::string&)> set;
  char letter = 0;  ///< for short; 0: none
  bool is_required = false;
  bool is_stored = true;  ///< in the configuration of a run
  bool is_newer = false;  ///< than runs that are read: the default, where it is not stored
  OnResume on_resume = OnResume::kMayChange;
  enum class File { kNone, kInput, kOutput } file = File::kNone;  ///< what its text names, if any

  bool is_list() const { return kind == Kind::kTexts || kind == Kind::kNumbers; }
  Option&& with_letter(char short_name) &&;
  Option&& required() &&;
  // What the text names: a file that is read or written, or a directory.
  Option&& input() &&;
  Option&& output() &&;
  Option&& directory() &&;
  Option&& not_stored() &&;
  Option&& newer() &&;
  Option&& must_match(OnResume when = OnResume::kMustMatch) &&;
};

/// Values of a whole number, both ends included.
struct WholeNumbers {
  std::int64_t least = 0;
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};

/// Values of a number: finite, from `least` (unless that is left out) to below `end`.
struct Numbers {
  enum class Least { kIncluded, kLeftOut };
  double least = 0;
  double end = std::numeric_limits<double>::infinity();
  Least at_least = Least::kIncluded;
};

// The makers. Functions given to them, and those below, throw an Error whose text is what the
// option takes: "a whole number from 1".

/// Text: UTF-8 of one line, or empty. `check` is called with what is not.
Option option(const std::string& name, std::string& field, const std::string& help);
Option option(const std::string& name, std::string& field, const std::string& help,
              const std::string& takes, const std::function<void(const std::string&)>& check);
/// Lists: values separated by commas.
Option option(const std::string& name, std::vector<std::string>& field, const std::string& help);
Option option(const std::string& name, std::vector<std::int64_t>& field, const std::string& help,
              WholeNumbers range);
Option option(const std::string& name, bool& field, const std::string& help);
/// A time such as 500ms, 30s, 5min or 2h; up to a year, and not zero.
Option option(const std::string& name, std::chrono::milliseconds& field, const std::string& help);
Option option(const std::string& name, std::uint64_t& field, const std::string& help);

std::chrono::milliseconds milliseconds_from_string(const std::string& text);
/// "10min": in the largest unit that is exact.
std::string to_string(std::chrono::milliseconds time);

/// The parts between commas, empty ones too; none of an empty text.
std::vector<std::string> split_list(const std::string& text);

/// The number that the whole of `text` says.
std::int64_t whole_number(const std::string& text, WholeNumbers range);
double number(const std::string& text, Numbers range);
/// Shortest that reads back equal.
std::string number_text(float value);
std::string number_text(double value);

Option make_option(const std::string& name, const std::string& takes, const std::string& help,
                   Option::Kind kind, std::function<std::string()> text,
                   std::function<void(const std::string&)> set);

template <std::signed_integral T>
Option option(const std::string& name, T& field, const std::string& help, WholeNumbers range = {}) {
  range.most = std::min<std::int64_t>(range.most, std::numeric_limits<T>::max());
  return make_option(
      name, "N", help, Option::Kind::kNumber, [&field] { return std::to_string(field); },
      [&field, range](const std::string& text) {
        field = static_cast<T>(whole_number(text, range));
      });
}

template <std::floating_point T>
Option option(const std::string& name, T& field, const std::string& help, Numbers range = {}) {
  return make_option(
      name, "X", help, Option::Kind::kNumber, [&field] { return number_text(field); },
      [&field, range](const std::string& text) {
        const double wide = number(text, range);
        const auto narrow = static_cast<T>(wide);
        // What a double can tell from an end of its range, T may not.
        number(number_text(narrow), range);
        if (narrow == 0 && wide != 0) throw usage_error("a number of ordinary size");
        field = narrow;
      });
}

/// One of a few words: `words` as the help shows them, `from_string` reads one or throws Error.
template <typename T>
  requires std::is_enum_v<T>
Option option(const std::string& name, T& field, const std::string& help, const std::string& words,
              T (*from_string)(const std::string&)) {
  return make_option(
      name, words, help, Option::Kind::kText, [&field] { return to_string(field); },
      [&field, words, from_string](const std::string& text) {
        try {
          field = from_string(text);
        } catch (const Error&) {
          throw usage_error(words);
        }
      });
}

}  // namespace serrate
