#pragma once

#include <cstdint>
#include <string>

// Names inside a dataset file, for its reader and its writer; docs/dataset_format.md tells them.
namespace serrate::dataset_format {

inline constexpr const char* kFormat = "serrate-dataset";
inline constexpr std::int64_t kVersion = 1;
inline constexpr const char* kUserOffsets = "/user_offsets";
inline constexpr const char* kTimestamps = "/timestamps";
inline constexpr const char* kBaskets = "/baskets";
inline constexpr const char* kUserVocabulary = "/user_vocabulary";

inline std::string feature_group(const std::string& name) {
  return "/features/" + name;
}
inline std::string vocabulary_group(const std::string& name) {
  return "/vocabularies/" + name;
}

}  // namespace serrate::dataset_format
