#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serrate {

enum class BadRows { kError, kSkip };

/// What to make of a delimited text file (DelimitedText: plain, gzip or xz).
struct ConvertOptions {
  std::string input;
  std::string output;
  std::string user = "user_id";  // column names, without the `:type` of RecBole
  std::string item = "item_id";
  std::string time = "timestamp";  // as parse_time_us reads it
  /// Further features of an event. An empty field is an empty bag, a column `name:token_seq` a bag
  /// of the words between its spaces, any other field one id.
  std::vector<std::string> categorical = {};
  std::string basket = {};  // empty: no baskets
  std::int64_t k_core = 0;  // keep users and items with at least so many events; 0: all
  char separator = 0;       // 0: by the input's name, else by its header
  BadRows bad_rows = BadRows::kError;
  std::string licence = {};  // under which terms the input may be used, to be kept with the data
};

struct BadRow {
  std::int64_t line = 0;
  std::string reason;
};

struct ConvertReport {
  std::int64_t num_rows = 0;  // read, without the header
  std::int64_t num_bad_rows = 0;
  std::vector<BadRow> first_bad_rows;  // 10 at most
  std::int64_t num_events = 0;         // written
  std::int64_t num_users = 0;
  std::int64_t num_items = 0;
  std::int64_t num_dropped_by_k_core = 0;  // rows
};

/// Writes the rows of a text file as a dataset. Users, items and other ids are numbered in the
/// order in which they first appear among the rows kept; a user's events are in order of time,
/// those of the same time in the order of the input. Throws Error (usage) naming file, line and
/// column.
ConvertReport convert(const ConvertOptions& options);

/// Lines for a person: what was read, dropped and written.
std::string to_string(const ConvertReport& report);

}  // namespace serrate
