#pragma once

#include <string>

namespace serrate {

/// Lines for a person: counts, lengths of histories, features, times and provenance of a dataset.
std::string describe_dataset(const std::string& path);

}  // namespace serrate
