#include "src/io/delimited_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <utility>

#include "serrate/error.h"

namespace serrate {
namespace {

constexpr std::size_t kReadBytes = 64 << 10;
constexpr std::size_t kLongestRecord = 16 << 20;

char separator_of_name(std::string_view path) {
  for (const std::string_view packed : {".gz", ".xz"}) {
    if (path.ends_with(packed)) path.remove_suffix(packed.size());
  }
  if (path.ends_with(".tsv") || path.ends_with(".inter")) return '\t';
  return path.ends_with(".csv") ? ',' : '\0';
}

char separator_of_header(std::string_view header) {
  constexpr std::array candidates = {'\t', ',', ';', '|'};
  return *std::ranges::max_element(
      candidates, {}, [&](char candidate) { return std::ranges::count(header, candidate); });
}

DelimitedColumn parse_column(std::string_view title) {
  for (const std::string_view type : {"token", "token_seq", "float", "float_seq", "timestamp"}) {
    const std::size_t colon = title.size() - std::min(title.size(), type.size() + 1);
    if (title.substr(colon, 1) == ":" && title.ends_with(type)) {
      return {std::string(title.substr(0, colon)), std::string(type)};
    }
  }
  return {std::string(title), ""};
}

void split(std::string_view record, char separator, std::vector<std::string_view>& fields) {
  for (std::size_t begin = 0;;) {
    const std::size_t end = record.find(separator, begin);
    fields.push_back(record.substr(begin, end - begin));
    if (end == std::string_view::npos) return;
    begin = end + 1;
  }
}

}  // namespace

DelimitedText::DelimitedText(const std::string& path, char separator)
    : path_(path), input_(path), separator_(separator ? separator : separator_of_name(path)) {
  const std::size_t length = std::min(find_line_end(0), end_);
  if (std::string_view(buffer_.data(), end_).starts_with("\xEF\xBB\xBF")) begin_ = 3;
  if (begin_ == end_) throw usage_error(path + " is empty (a header line is needed)");
  if (!separator_) {
    separator_ = separator_of_header(std::string_view(buffer_.data(), length));
  }
  next_record();
  std::ranges::transform(fields_, std::back_inserter(columns_), parse_column);
}

std::size_t DelimitedText::column(std::string_view name) const {
  const auto count = std::ranges::count(columns_, name, &DelimitedColumn::name);
  if (count != 1) {
    std::vector<std::string_view> known;
    std::ranges::transform(columns_, std::back_inserter(known), &DelimitedColumn::name);
    throw usage_error(fmt::format(
        "{} has {} '{}' (its header has: {}): name another column or "
        "separator",
        path_, count == 0 ? "no column" : "more than one column", name, fmt::join(known, ", ")));
  }
  const auto found = std::ranges::find(columns_, name, &DelimitedColumn::name);
  return static_cast<std::size_t>(found - columns_.begin());
}

bool DelimitedText::next() {
  do {
    if (!next_record()) return false;
  } while (columns_.size() > 1 && fields_.size() == 1 && fields_.front().empty());
  return true;
}

/// Reads more bytes behind those not read yet; false at the end of the file.
bool DelimitedText::refill() {
  if (begin_ > 0) std::copy(buffer_.begin() + begin_, buffer_.begin() + end_, buffer_.begin());
  end_ -= std::exchange(begin_, 0);
  if (end_ > kLongestRecord) {
    throw usage_error(
        fmt::format("{}, line {}: a record is longer than 16 MiB (a quote that is "
                    "not closed, or no text file?)",
                    path_, next_line_));
  }
  if (buffer_.size() < end_ + kReadBytes) buffer_.resize(end_ + kReadBytes);
  try {
    const std::size_t size = input_.read(buffer_.data() + end_, kReadBytes);
    end_ += size;
    return size > 0;
  } catch (const Error& error) {
    throw Error(
        fmt::format("{}, line {}: {}", path_, std::max<std::int64_t>(line_, 1), error.what()),
        error.kind());
  }
}

/// The position, counted from begin_, of the first line end at or behind `from`; npos without one.
std::size_t DelimitedText::find_line_end(std::size_t from) {
  while (true) {
    const std::size_t size = end_ - begin_;
    if (from < size) {
      const char* start = buffer_.data() + begin_;
      if (const void* found = std::memchr(start + from, '\n', size - from)) {
        return static_cast<std::size_t>(static_cast<const char*>(found) - start);
      }
      from = size;
    }
    if (!refill()) return std::string_view::npos;
  }
}

bool DelimitedText::next_record() {
  fields_.clear();
  line_ = next_line_++;
  std::size_t end = find_line_end(0);
  if (end == std::string_view::npos && begin_ == end_) return false;
  const std::size_t line_length = std::min(end, end_ - begin_);
  const bool quoted =
      separator_ != '\t' && std::memchr(buffer_.data() + begin_, '"', line_length) != nullptr;
  if (quoted) end = find_record_end(end);
  std::size_t length = std::min(end, end_ - begin_);
  if (length > 0 && buffer_[begin_ + length - 1] == '\r') --length;
  if (quoted) {
    split_quoted(length);
  } else {
    split(std::string_view(buffer_.data() + begin_, length), separator_, fields_);
  }
  begin_ = end == std::string_view::npos ? end_ : begin_ + end + 1;
  return true;
}

/// As find_line_end, for the line end that is not inside quotes; `line_end` is the first one.
std::size_t DelimitedText::find_record_end(std::size_t line_end) {
  std::size_t at = 0;
  bool in_quotes = false;
  bool field_start = true;
  while (true) {
    for (const std::size_t end = std::min(line_end, end_ - begin_); at < end; ++at) {
      const char c = buffer_[begin_ + at];
      if (c == '"' && (in_quotes || field_start)) {
        // The first quote of a doubled one closes, the second one opens again.
        in_quotes = !in_quotes;
        field_start = !in_quotes;
      } else if (!in_quotes) {
        field_start = c == separator_;
      }
    }
    if (!in_quotes) return line_end;
    if (line_end == std::string_view::npos) break;
    line_end = find_line_end(at + 1);
    ++next_line_;
  }
  throw usage_error(fmt::format("{}, line {}: a quote is not closed", path_, line_));
}

/// Splits the record at begin_, undoubling quotes in place.
void DelimitedText::split_quoted(std::size_t length) {
  char* record = buffer_.data() + begin_;
  for (std::size_t at = 0;; ++at) {
    const std::size_t begin = at;
    if (at < length && record[at] == '"') {
      std::size_t out = ++at;
      while (record[at] != '"' || (at + 1 < length && record[at + 1] == '"')) {
        at += record[at] == '"';
        record[out++] = record[at++];
      }
      ++at;
      fields_.emplace_back(record + begin + 1, out - begin - 1);
    } else {
      at = std::find(record + begin, record + length, separator_) - record;
      fields_.emplace_back(record + begin, at - begin);
    }
    if (at == length) return;
    if (record[at] != separator_) {
      throw usage_error(
          fmt::format("{}, line {}: there is text behind a closing quote", path_, line_));
    }
  }
}

}  // namespace serrate
