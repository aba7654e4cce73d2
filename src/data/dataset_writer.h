#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/data/vocabulary.h"

namespace serrate {

/// A feature of a dataset to be written.
struct DatasetFeatureSpec {
  std::string name;
  std::int64_t vocabulary_size = 0;
  /// Ids of all events together; -1: every event has exactly one.
  std::int64_t num_values = -1;
};

/// Sizes and attributes of a dataset to be written, known before its first event.
struct DatasetSpec {
  std::int64_t num_users = 0;
  std::int64_t num_events = 0;
  bool with_baskets = false;
  std::vector<DatasetFeatureSpec> features = {};  // the first is the item
  std::string source = {};                        // where the events come from
  std::string licence = {};                       // under which terms they may be used
};

/// A bag of ids for every event of a user: event i has values [offsets[i] - offsets[0],
/// offsets[i + 1] - offsets[0]).
struct EventBags {
  std::span<const std::int64_t> values;
  std::span<const std::int64_t> offsets = {};  // [num_events + 1], or empty for one id an event
};

/// The events of one user in order of time, as views.
struct UserEvents {
  std::span<const std::int64_t> timestamps;    // [num_events], seconds, not falling
  std::span<const std::int64_t> baskets = {};  // [num_events], or empty without baskets
  std::vector<EventBags> features;
};

/// Writes a dataset file (docs/dataset_format.md) user by user, with little in memory: the file
/// appears under its name at commit(), and not at all without.
class DatasetWriter {
 public:
  /// Throws Error (usage) when the folder of `path` does not exist or a name cannot be stored.
  DatasetWriter(const std::string& path, const DatasetSpec& spec);
  ~DatasetWriter();

  /// Users are numbered in the order of these calls.
  void append_user(const UserEvents& events);
  /// The texts of a feature's ids, or of the users. Without them an id's text is its number.
  void write_vocabulary(std::int64_t feature, const Vocabulary& vocabulary);
  void write_user_vocabulary(const Vocabulary& vocabulary);
  /// Throws Error when less was appended than the DatasetSpec said.
  void commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate
