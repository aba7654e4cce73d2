#pragma once

#include <cstdint>
#include <string>

// Names inside a dataset file, for its reader and its writer; docs/dataset_format.md tells them.
namespace serrate::dataset_format {

inline constexpr const char* kFormat = "serrate-dataset";
inline constexpr std::int64_t kVersion = 2;
/// The latest timestamp, in seconds before or after 1970: the year 192,000. Milliseconds fit too,
/// microseconds do not.
inline constexpr std::int64_t kLatestTime = 6'000'000'000'000;
/// Ids of a feature: more than any table has rows, and few enough to be multiplied by its bytes.
inline constexpr std::int64_t kMostIds = std::int64_t{1} << 40;
inline constexpr const char* kUserOffsets = "/user_offsets";
inline constexpr const char* kTimestamps = "/timestamps";
inline constexpr const char* kBaskets = "/baskets";
inline constexpr const char* kUserVocabulary = "/user_vocabulary";

/// HDF5 separates groups by '/', and the list of features is separated by line ends.
inline bool is_feature_name(const std::string& name) {
  return !name.empty() && name != "." && name.find_first_of(std::string("/\n\0", 3)) == name.npos;
}
inline std::string feature_group(const std::string& name) {
  return "/features/" + name;
}
inline std::string vocabulary_group(const std::string& name) {
  return "/vocabularies/" + name;
}

}  // namespace serrate::dataset_format
