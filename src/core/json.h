#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serrate/error.h"

namespace serrate {

/// Parses `text`. Throws Error (usage), beginning with `document` ("sharding plan"), when it is not
/// JSON (line and column), when an object has a field twice (path to the field) or when it is
/// nested deeper than any document of ours.
nlohmann::json parse_json(std::string_view text, std::string_view document);

/// Whether it can be a string of JSON.
bool is_utf8(std::string_view text);
/// `name` as it is written in JSON, quoted. Throws Error (usage) when it is not UTF-8.
std::string json_string(std::string_view name);

/// One value of a parsed document, read strictly. Each getter throws Error (usage) that names the
/// document, the path to the field ("tables[2].shards[0].rank") and what it should have been.
/// The parsed document has to outlive it.
class JsonField {
 public:
  JsonField(const nlohmann::json& root, std::string document)
      : value_(&root), document_(std::move(document)) {}

  /// The field of an object; missing is an error.
  JsonField at(std::string_view name) const;
  /// The field of an object, if it has it.
  std::optional<JsonField> find(std::string_view name) const;
  /// An error when an object has any other field, or when this is not an object.
  void allow_only(std::initializer_list<std::string_view> names) const;
  /// The names of the fields of an object.
  std::vector<std::string> names() const;
  std::vector<JsonField> array() const;
  std::string string() const;
  /// An integer that fits; 1.0 and 1e3 are not integers.
  std::int64_t int64() const;
  /// An integer in [least, most].
  std::int64_t int64(std::int64_t least, std::int64_t most) const;
  std::uint64_t uint64() const;
  /// A finite number.
  double number() const;
  bool boolean() const;
  bool is_string() const { return value_->is_string(); }
  /// What `read` makes of the string; its Error becomes one that names this field.
  template <typename T>
  T string_as(T (*read)(const std::string&)) const {
    const std::string text = string();
    try {
      return read(text);
    } catch (const Error& error) {
      fail(error.what());
    }
  }

  /// The error for this field: "sharding plan: tables[2].type: <problem>".
  [[noreturn]] void fail(std::string_view problem) const;

 private:
  JsonField(const nlohmann::json& value, std::string document, std::string path)
      : value_(&value), document_(std::move(document)), path_(std::move(path)) {}
  [[noreturn]] void fail_type(std::string_view expected) const;

  const nlohmann::json* value_;
  std::string document_;
  std::string path_;  // empty for the root
};

}  // namespace serrate
