#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace serrate {

/// A categorical feature of every event. Its ids are [0, vocabulary.size()).
struct DatasetFeature {
  std::string name;
  std::int64_t vocabulary_size = 0;
};

/// What becomes of ids outside of the vocabulary of their feature.
enum class UnknownIds {
  kError,  ///< Error (usage) that says where in the file the first one is
  kKeep,   ///< returned as stored; the embedding's policy decides
};

/// The bags of one feature for a run of events; offsets from 0.
struct FeatureBags {
  std::vector<std::int64_t> values;
  std::vector<std::int64_t> offsets;  // [num_events + 1]
};

/// A dataset file (HDF5, docs/dataset_format.md) opened for reading: users, each with events in
/// order of time, each event with a bag of ids for every feature. Feature 0 is the item, with
/// exactly one id an event. Reads go to the file; only the users' offsets are kept in memory.
/// Safe to use from several threads.
class Dataset {
 public:
  /// Throws Error naming the file and what is wrong with it: usage, or failure when the system
  /// could not read it. So do all reads: everything is verified as it is read.
  static Dataset open(const std::string& path);
  ~Dataset();
  Dataset(Dataset&&) noexcept;
  Dataset& operator=(Dataset&&) noexcept;

  /// 32 hexadecimal digits that name the content (SealedFile).
  std::string digest() const;
  /// Reads all of the file: every checksum, and all that docs/dataset_format.md promises.
  void verify() const;

  std::int64_t num_users() const;
  std::int64_t num_events() const;
  std::int64_t num_items() const { return features().front().vocabulary_size; }
  bool has_item(std::int64_t id) const { return 0 <= id && id < num_items(); }
  const std::vector<DatasetFeature>& features() const;
  /// Throws Error (usage) naming the features there are.
  std::int64_t feature_index(const std::string& name) const;
  bool has_baskets() const;
  /// [num_users + 1]: the events of user u are [user_offsets[u], user_offsets[u + 1]).
  const std::vector<std::int64_t>& user_offsets() const;

  /// Events [begin, end) of a column, replacing what `bags`/`values` held. Ids of features are not
  /// compared with the vocabulary: that is for ShardedEmbedding and its policy.
  void read_feature(std::int64_t feature, std::int64_t begin, std::int64_t end,
                    FeatureBags& bags) const;
  /// Throws Error (usage) that names the file and the place of the first id outside of the
  /// vocabulary; the bags are those of events from `begin` on.
  void check_ids(std::int64_t feature, std::int64_t begin, const FeatureBags& bags) const;
  /// The items of events [begin, end).
  void read_items(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& items,
                  UnknownIds unknown_ids = UnknownIds::kError) const;
  /// Not falling within a user.
  void read_timestamps(std::int64_t begin, std::int64_t end,
                       std::vector<std::int64_t>& timestamps) const;
  /// Basket numbers; only when has_baskets(). Events that share user and basket were bought
  /// together.
  void read_baskets(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& baskets) const;
  /// The original text of ids, e.g. for printing recommendations.
  std::string vocabulary_entry(std::int64_t feature, std::int64_t id) const;
  std::string user_entry(std::int64_t user) const;
  /// A text attribute of the file: "source", "licence" or "created_by".
  std::string attribute(const std::string& name) const;

 private:
  struct Impl;
  explicit Dataset(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate
