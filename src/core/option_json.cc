#include "src/core/option_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "src/core/json.h"

namespace serrate {
namespace {

std::string json_value(const Option& option) {
  const std::string text = option.text();
  switch (option.kind) {
    case Option::Kind::kText:
      return json_string(text);
    case Option::Kind::kNumber:
    case Option::Kind::kFlag:
      return text;
    case Option::Kind::kNumbers:
      return fmt::format("[{}]", text);
    case Option::Kind::kTexts:
      break;
  }
  std::string list;
  for (const std::string& part : split_list(text)) {
    list += fmt::format("{}{}", list.empty() ? "" : ", ", json_string(part));
  }
  return fmt::format("[{}]", list);
}

// A list's elements are no lists.
std::string text_of(const nlohmann::json& value, const JsonField& field, bool in_list = false) {
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    if (in_list && text.empty()) field.fail("has an empty part");
    if (in_list && text.find(',') != std::string::npos) field.fail("has a comma in it");
    return text;
  }
  if (value.is_number() || value.is_boolean()) return value.dump();
  if (!value.is_array() || in_list) field.fail("is neither text, a number, true, false nor a list");
  std::string list;
  for (const nlohmann::json& part : value) {
    if (!list.empty()) list += ',';
    list += text_of(part, field, true);
  }
  return list;
}

}  // namespace

std::string options_to_json(const std::vector<Option>& options) {
  std::string fields;
  for (const Option& option : options) {
    if (!option.is_stored) continue;
    fields += fmt::format("{}\n  {}: {}", fields.empty() ? "" : ",", json_string(option.name),
                          json_value(option));
  }
  return fmt::format("{{{}\n}}\n", fields);
}

void read_option_values(
    std::string_view json, std::string_view document,
    const std::function<void(const std::string& name, const std::string& value)>& set) {
  const nlohmann::json root = parse_json(json, document);
  const JsonField fields(root, std::string(document));
  if (!root.is_object()) fields.fail("is not an object of options");
  for (const auto& [name, value] : root.items()) set(name, text_of(value, fields.at(name)));
}

void options_from_json(std::string_view json, std::string_view document,
                       const std::vector<Option>& options) {
  std::map<std::string, std::string> values;
  read_option_values(json, document, [&](const std::string& name, const std::string& value) {
    values[name] = value;
  });
  for (const Option& option : options) {
    if (!option.is_stored) continue;
    const auto found = values.find(option.name);
    if (found == values.end()) {
      if (option.is_newer) continue;
      throw usage_error(fmt::format("{}: \"{}\" is missing", document, option.name));
    }
    try {
      option.set(found->second);
    } catch (const Error& error) {
      throw usage_error(fmt::format("{}: {}", document, error.what()));
    }
    values.erase(found);
  }
  if (!values.empty()) {
    throw usage_error(
        fmt::format("{}: \"{}\" is not an option of a run", document, values.begin()->first));
  }
}

}  // namespace serrate
