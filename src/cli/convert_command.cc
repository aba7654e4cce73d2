#include "src/data/convert.h"

#include <fmt/format.h>

#include "serrate/error.h"
#include "src/cli/commands.h"

namespace serrate::cli {

int convert_command(const Arguments& arguments) {
  ConvertOptions options;
  std::string separator;
  bool skip_bad_rows = false;
  Options line("convert", "Makes a dataset of a delimited text file with a header.");
  line.add("input", options.input, "text file, may be packed by gzip or xz",
           Options::Need::kRequired);
  line.add("output", options.output, "dataset file", Options::Need::kRequired);
  line.add("user", options.user, "column of the user");
  line.add("item", options.item, "column of the item");
  line.add("time", options.time, "column of the time: seconds since 1970 or a date");
  line.add("categorical", options.categorical, "columns of further features of an event");
  line.add("basket", options.basket, "column that is the same for what was bought together");
  line.add("k-core", options.k_core, "keeps users and items with at least so many events");
  line.add("separator", separator, "between fields: a character or tab; found out when left out");
  line.add("skip-bad-rows", skip_bad_rows, "leaves bad rows out, instead of failing");
  line.add("licence", options.licence, "terms of use, kept in the dataset");
  if (!line.parse(arguments)) return 0;

  if (separator.size() > 1 && separator != "tab") {
    throw usage_error(fmt::format("--separator \"{}\" (takes a character or tab)", separator));
  }
  if (!separator.empty()) options.separator = separator == "tab" ? '\t' : separator[0];
  if (skip_bad_rows) options.bad_rows = BadRows::kSkip;
  fmt::print("{}\n", to_string(convert(options)));
  return 0;
}

}  // namespace serrate::cli
