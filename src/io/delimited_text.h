#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/text_input.h"

namespace serrate {

/// A column of the header: `name` or, as in RecBole's atomic files, `name:type` with type token,
/// token_seq (ids separated by spaces), float, float_seq or timestamp.
struct DelimitedColumn {
  std::string name;
  std::string type;  // empty when the header names none
};

/// Records of a text file with a header line, one separator and a record a line. Line ends are \n
/// or \r\n; blank lines are passed over. Unless the separator is a tab, a field may be put in
/// double quotes, and then hold separators, line ends and doubled quotes (RFC 4180).
class DelimitedText {
 public:
  /// `separator` 0: a tab for .tsv and .inter, a comma for .csv (each also with .gz or .xz), else
  /// the one of tab, comma, semicolon and bar that the header has most of.
  explicit DelimitedText(const std::string& path, char separator = 0);

  const std::string& path() const { return path_; }
  const std::vector<DelimitedColumn>& columns() const { return columns_; }
  /// The position of a column; throws Error (usage) naming those there are.
  std::size_t column(std::string_view name) const;

  /// Moves to the next record; false at the end.
  bool next();
  /// The line the record begins on, from 1.
  std::int64_t line() const { return line_; }
  /// Views that hold until the next call of next().
  const std::vector<std::string_view>& fields() const { return fields_; }

 private:
  bool next_record();
  std::size_t find_line_end(std::size_t from);
  bool refill();
  std::size_t find_record_end(std::size_t line_end);
  void split_quoted(std::size_t length);

  std::string path_;
  TextInput input_;
  char separator_ = 0;
  std::vector<DelimitedColumn> columns_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;  // buffer_[begin_, end_) is not read yet
  std::size_t end_ = 0;
  std::int64_t line_ = 0;       // of the current record
  std::int64_t next_line_ = 1;  // of the next one
  std::vector<std::string_view> fields_;
};

}  // namespace serrate
