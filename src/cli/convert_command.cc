#include "src/data/convert.h"

#include <fmt/format.h>

#include "serrate/error.h"
#include "src/cli/commands.h"
#include "src/cli/stop_signals.h"
#include "src/io/atomic_file.h"

namespace serrate::cli {

int convert_command(const Arguments& arguments) {
  ConvertOptions options;
  std::string separator;
  bool skip_bad_rows = false;
  Options line("convert", "Makes a dataset of a delimited text file with a header.");
  line.add(option("input", options.input, "delimited text, plain or compressed by gzip or xz")
               .required()
               .input());
  line.add(option("output", options.output, "dataset file").required().output());
  line.add(option("user", options.user, "column of the user"));
  line.add(option("item", options.item, "column of the item"));
  line.add(option("time", options.time, "column of the time: seconds since 1970 or a date"));
  line.add(option("categorical", options.categorical, "columns of further features of an event"));
  line.add(option("basket", options.basket, "column whose value events of one basket share"));
  line.add(option("k-core", options.k_core, "keeps users and items with at least N events each"));
  line.add(
      option("separator", separator, "between fields: a character, or tab; by default detected"));
  line.add(option("skip-bad-rows", skip_bad_rows,
                  "leaves out rows that cannot be read instead of failing"));
  line.add(option("licence", options.licence, "terms of use, kept in the dataset"));
  if (!line.parse(arguments)) return 0;

  if (separator.size() > 1 && separator != "tab") {
    throw usage_error(fmt::format("--separator \"{}\" (takes a character or tab)", separator));
  }
  if (!separator.empty()) options.separator = separator == "tab" ? '\t' : separator[0];
  if (skip_bad_rows) options.bad_rows = BadRows::kSkip;
  remove_on_stop_signals(temporary_path_of(options.output));
  fmt::print("{}\n", to_string(convert(options)));
  return 0;
}

}  // namespace serrate::cli
