#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/core/option.h"

namespace serrate {

/// An object with a field for each option that is stored.
std::string options_to_json(const std::vector<Option>& options);
/// Sets the options that are stored, each of which has to be there, and nothing else. Throws Error
/// (usage) that begins with `document` and names the field.
void options_from_json(std::string_view json, std::string_view document,
                       const std::vector<Option>& options);
/// Calls set(name, value as a user would write it) for every field of the object.
void read_option_values(
    std::string_view json, std::string_view document,
    const std::function<void(const std::string& name, const std::string& value)>& set);

}  // namespace serrate
