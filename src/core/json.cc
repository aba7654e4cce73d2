#include "src/core/json.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <set>

namespace serrate {
namespace {

using nlohmann::json;

// Paths are kept for every open container, so unlimited depth would cost its square.
constexpr std::size_t kMostNested = 64;

std::string member_path(const std::string& parent, std::string_view name) {
  return parent.empty() ? std::string(name) : fmt::format("{}.{}", parent, name);
}

std::string element_path(const std::string& parent, std::size_t index) {
  return fmt::format("{}[{}]", parent, index);
}

// Follows the parser through a document to find a field that an object has twice; the parser
// itself would keep the last one.
class DuplicateFinder {
 public:
  explicit DuplicateFinder(std::string_view document) : document_(document) {}

  void on_event(json::parse_event_t event, const json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
      case json::parse_event_t::array_start:
        if (open_.size() == kMostNested) {
          throw usage_error(fmt::format("{}: {}: is nested deeper than {} levels", document_,
                                        next_path(), kMostNested));
        }
        open_.push_back({next_path(), event == json::parse_event_t::array_start});
        break;
      case json::parse_event_t::key:
        open_.back().key = parsed.get_ref<const std::string&>();
        if (!open_.back().keys.insert(open_.back().key).second) {
          throw usage_error(fmt::format("{}: {}: appears twice in the same object", document_,
                                        member_path(open_.back().path, open_.back().key)));
        }
        break;
      case json::parse_event_t::object_end:
      case json::parse_event_t::array_end:
        open_.pop_back();
        end_value();
        break;
      case json::parse_event_t::value:
        end_value();
        break;
    }
  }

 private:
  struct Container {
    std::string path;
    bool is_array;
    std::size_t index = 0;            // of an array's next element
    std::string key = {};             // of an object's next value
    std::set<std::string> keys = {};  // of an object so far
  };

  std::string next_path() const {
    if (open_.empty()) return "";
    const Container& in = open_.back();
    return in.is_array ? element_path(in.path, in.index) : member_path(in.path, in.key);
  }
  void end_value() {
    if (!open_.empty()) ++open_.back().index;
  }

  std::string_view document_;
  std::vector<Container> open_;
};

}  // namespace

json parse_json(std::string_view text, std::string_view document) {
  DuplicateFinder duplicates(document);
  try {
    return json::parse(text, [&](int, json::parse_event_t event, const json& parsed) {
      duplicates.on_event(event, parsed);
      return true;
    });
  } catch (const json::exception& error) {
    // what() is "[json.exception.parse_error.101] parse error at line 1, column 2: ...".
    std::string_view problem = error.what();
    problem.remove_prefix(problem.find("] ") + 2);
    throw usage_error(fmt::format("{}: {}", document, problem));
  }
}

bool is_utf8(std::string_view text) {
  try {
    json(text).dump();
    return true;
  } catch (const json::type_error&) {
    return false;
  }
}

std::string json_string(std::string_view name) {
  if (!is_utf8(name)) {
    throw usage_error(
        fmt::format("the name \"{}\" is not UTF-8 (JSON files hold no other): rename it", name));
  }
  return json(name).dump();
}

JsonField JsonField::at(std::string_view name) const {
  if (auto field = find(name)) return *std::move(field);
  throw usage_error(fmt::format("{}: {}: is missing", document_, member_path(path_, name)));
}

std::optional<JsonField> JsonField::find(std::string_view name) const {
  if (!value_->is_object()) fail_type("an object");
  const auto found = value_->find(name);
  if (found == value_->end()) return std::nullopt;
  return JsonField(*found, document_, member_path(path_, name));
}

void JsonField::allow_only(std::initializer_list<std::string_view> names) const {
  if (!value_->is_object()) fail_type("an object");
  for (const auto& [name, value] : value_->items()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    JsonField(value, document_, member_path(path_, name))
        .fail(fmt::format("is not a field of this object (there are: {})", fmt::join(names, ", ")));
  }
}

std::vector<std::string> JsonField::names() const {
  if (!value_->is_object()) fail_type("an object");
  std::vector<std::string> names;
  for (const auto& item : value_->items()) names.push_back(item.key());
  return names;
}

std::vector<JsonField> JsonField::array() const {
  if (!value_->is_array()) fail_type("an array");
  std::vector<JsonField> elements;
  for (std::size_t i = 0; i < value_->size(); ++i) {
    elements.push_back({(*value_)[i], document_, element_path(path_, i)});
  }
  return elements;
}

std::string JsonField::string() const {
  if (!value_->is_string()) fail_type("a string");
  return value_->get<std::string>();
}

std::int64_t JsonField::int64() const {
  // The parser turns integers beyond 64 bits into floating point.
  if (!value_->is_number_integer()) fail_type("an integer of at most 64 bits");
  if (value_->is_number_unsigned() &&
      value_->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()}) {
    fail_type("an integer of at most 64 bits");
  }
  return value_->get<std::int64_t>();
}

std::int64_t JsonField::int64(std::int64_t least, std::int64_t most) const {
  const std::int64_t value = int64();
  if (value < least || value > most) {
    fail(least == most ? fmt::format("must be {} (got {})", least, value)
                       : fmt::format("must be between {} and {} (got {})", least, most, value));
  }
  return value;
}

std::uint64_t JsonField::uint64() const {
  if (!value_->is_number_unsigned()) fail_type("an integer of at most 64 bits, not negative");
  return value_->get<std::uint64_t>();
}

double JsonField::number() const {
  // The parser refuses numbers beyond double.
  if (!value_->is_number()) fail_type("a number");
  return value_->get<double>();
}

bool JsonField::boolean() const {
  if (!value_->is_boolean()) fail_type("true or false");
  return value_->get<bool>();
}

void JsonField::fail(std::string_view problem) const {
  throw usage_error(path_.empty() ? fmt::format("{}: {}", document_, problem)
                                  : fmt::format("{}: {}: {}", document_, path_, problem));
}

void JsonField::fail_type(std::string_view expected) const {
  constexpr std::size_t kLongest = 40;
  std::string found = value_->dump();
  if (found.size() > kLongest) found = found.substr(0, kLongest) + "...";
  fail(fmt::format("must be {} (got {})", expected, found));
}

}  // namespace serrate
