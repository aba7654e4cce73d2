#pragma once

#include <string>

namespace serrate {

/// Lines for a person: digest, counts, lengths of histories, features, times and provenance of a
/// dataset, all of which is verified.
std::string describe_dataset(const std::string& path);

}  // namespace serrate
