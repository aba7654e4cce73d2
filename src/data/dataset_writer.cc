#include "src/data/dataset_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "serrate/error.h"
#include "src/data/dataset_format.h"
#include "src/io/atomic_file.h"
#include "src/io/hdf5_file.h"

namespace serrate {
namespace {

namespace names = dataset_format;

/// Writes a one-dimensional dataset from its beginning to its end in large pieces.
class ColumnWriter {
 public:
  explicit ColumnWriter(Hdf5Dataset dataset) : dataset_(std::move(dataset)) {}

  void append(std::span<const std::int64_t> values) {
    pending_.insert(pending_.end(), values.begin(), values.end());
    if (pending_.size() >= kPendingValues) flush();
  }
  void finish() {
    flush();
    check(written_ == dataset_.rows(), fmt::format("{} got {} values, {} were announced",
                                                   dataset_.name(), written_, dataset_.rows()));
  }
  /// Values appended so far.
  std::int64_t size() const { return written_ + static_cast<std::int64_t>(pending_.size()); }

 private:
  static constexpr std::size_t kPendingValues = 64 << 10;

  void flush() {
    const std::int64_t end = size();
    check(end <= dataset_.rows(), fmt::format("{} gets more than the {} values announced",
                                              dataset_.name(), dataset_.rows()));
    dataset_.write_rows(written_, end, std::span<const std::int64_t>(pending_));
    written_ = end;
    pending_.clear();
  }

  Hdf5Dataset dataset_;
  std::vector<std::int64_t> pending_;
  std::int64_t written_ = 0;
};

struct FeatureWriter {
  DatasetFeatureSpec spec;
  ColumnWriter values;
  std::optional<ColumnWriter> offsets;  // absent when every event has exactly one id

  void append(const EventBags& bags, std::size_t num_events) {
    const auto bad = std::ranges::find_if(
        bags.values, [&](std::int64_t id) { return id < 0 || id >= spec.vocabulary_size; });
    check(bad == bags.values.end(), "an id lies outside of the vocabulary of " + spec.name);
    if (offsets) {
      check(bags.offsets.size() == num_events + 1, "one bag an event is needed of " + spec.name);
      const std::int64_t shift = values.size() - bags.offsets.front();
      std::vector<std::int64_t> ends(num_events);
      std::ranges::transform(bags.offsets.subspan(1), ends.begin(),
                             [&](std::int64_t end) { return end + shift; });
      check(num_events == 0 || ends.back() == values.size() + std::ssize(bags.values),
            "offsets and values differ in length for " + spec.name);
      offsets->append(ends);
    } else {
      check(bags.values.size() == num_events, "one id an event is needed of " + spec.name);
    }
    values.append(bags.values);
  }
};

void check_features(const std::vector<DatasetFeatureSpec>& features) {
  check(!features.empty() && features.front().num_values == -1,
        "the first feature is the item, with exactly one id an event");
  for (auto feature = features.begin(); feature != features.end(); ++feature) {
    if (!names::is_feature_name(feature->name)) {
      throw usage_error(fmt::format(
          "a feature cannot be called '{}' (empty, '.', or with a slash or a line end): "
          "rename the column",
          feature->name));
    }
    if (feature->vocabulary_size < 0 || feature->vocabulary_size > names::kMostIds) {
      throw usage_error(fmt::format("feature {} cannot have {} ids (0 to {} are possible)",
                                    feature->name, feature->vocabulary_size, names::kMostIds));
    }
    check(std::ranges::count(features, feature->name, &DatasetFeatureSpec::name) == 1,
          "two features are called " + feature->name);
  }
}

}  // namespace

struct DatasetWriter::Impl {
  Impl(const std::string& path, const DatasetSpec& spec)
      : output(path), file(create(output, spec)), num_users(spec.num_users) {
    write_attributes(spec);
    user_offsets.emplace(
        file.create_dataset<std::int64_t>(names::kUserOffsets, {spec.num_users + 1}));
    user_offsets->append(std::vector<std::int64_t>{0});
    timestamps.emplace(file.create_dataset<std::int64_t>(names::kTimestamps, {spec.num_events}));
    if (spec.with_baskets) {
      baskets.emplace(file.create_dataset<std::int64_t>(names::kBaskets, {spec.num_events}));
    }
    for (const auto& feature : spec.features) create_feature(feature, spec.num_events);
  }

  static Hdf5File create(const AtomicFile& output, const DatasetSpec& spec) {
    check_features(spec.features);
    check(spec.num_users >= 0 && spec.num_events >= 0, "a dataset has no fewer than 0 events");
    return Hdf5File::create(output.temporary_path());
  }

  void write_attributes(const DatasetSpec& spec) {
    std::string feature_names;
    for (const auto& feature : spec.features) {
      feature_names += (feature_names.empty() ? "" : "\n") + feature.name;
    }
    file.write_attribute("/", "format", names::kFormat);
    file.write_attribute("/", "version", names::kVersion);
    file.write_attribute("/", "features", feature_names);
    file.write_attribute("/", "source", spec.source);
    file.write_attribute("/", "licence", spec.licence);
    file.write_attribute("/", "created_by", "serrate " SERRATE_VERSION);
    file.write_attribute("/", "num_users", spec.num_users);
    file.write_attribute("/", "num_events", spec.num_events);
  }

  void create_feature(const DatasetFeatureSpec& feature, std::int64_t num_events) {
    const std::string group = names::feature_group(feature.name);
    const bool bags = feature.num_values >= 0;
    ColumnWriter values(file.create_dataset<std::int64_t>(
        group + "/values", {bags ? feature.num_values : num_events}));
    file.write_attribute(group, "vocabulary_size", feature.vocabulary_size);
    features.push_back({feature, std::move(values), std::nullopt});
    if (bags) {
      features.back().offsets.emplace(
          file.create_dataset<std::int64_t>(group + "/offsets", {num_events + 1}));
      features.back().offsets->append(std::vector<std::int64_t>{0});
    }
  }

  void write_vocabulary(const std::string& group, const Vocabulary& vocabulary,
                        std::int64_t expected_size) {
    check(vocabulary.size() == expected_size,
          fmt::format("{} has {} texts for {} ids", group, vocabulary.size(), expected_size));
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(vocabulary.bytes().data());
    const auto num_bytes = static_cast<std::int64_t>(vocabulary.bytes().size());
    file.write(group + "/bytes", std::span(bytes, vocabulary.bytes().size()), {num_bytes});
    file.write(group + "/offsets", std::span(vocabulary.offsets()), {vocabulary.size() + 1});
  }

  /// All columns are complete and closed.
  void finish() {
    user_offsets->finish();
    timestamps->finish();
    if (baskets) baskets->finish();
    for (auto& feature : features) {
      feature.values.finish();
      if (feature.offsets) feature.offsets->finish();
    }
    user_offsets.reset();
    timestamps.reset();
    baskets.reset();
    features.clear();
  }

  AtomicFile output;
  Hdf5File file;
  std::optional<ColumnWriter> user_offsets;
  std::optional<ColumnWriter> timestamps;
  std::optional<ColumnWriter> baskets;
  std::vector<FeatureWriter> features;
  std::int64_t num_users;
};

DatasetWriter::DatasetWriter(const std::string& path, const DatasetSpec& spec)
    : impl_(std::make_unique<Impl>(path, spec)) {}

DatasetWriter::~DatasetWriter() = default;

void DatasetWriter::append_user(const UserEvents& events) {
  Impl& impl = *impl_;
  const std::size_t num_events = events.timestamps.size();
  check(std::ranges::is_sorted(events.timestamps), "a user's timestamps must not fall");
  check(num_events == 0 || (-names::kLatestTime <= events.timestamps.front() &&
                            events.timestamps.back() <= names::kLatestTime),
        "timestamps are seconds since 1970");
  check(events.baskets.size() == (impl.baskets ? num_events : 0), "one basket an event is needed");
  check(events.features.size() == impl.features.size(), "bags of every feature are needed");
  impl.timestamps->append(events.timestamps);
  if (impl.baskets) impl.baskets->append(events.baskets);
  for (std::size_t f = 0; f < impl.features.size(); ++f) {
    impl.features[f].append(events.features[f], num_events);
  }
  impl.user_offsets->append(std::vector<std::int64_t>{impl.timestamps->size()});
}

void DatasetWriter::write_vocabulary(std::int64_t feature, const Vocabulary& vocabulary) {
  const auto& spec = impl_->features.at(static_cast<std::size_t>(feature)).spec;
  impl_->write_vocabulary(names::vocabulary_group(spec.name), vocabulary, spec.vocabulary_size);
}

void DatasetWriter::write_user_vocabulary(const Vocabulary& vocabulary) {
  impl_->write_vocabulary(names::kUserVocabulary, vocabulary, impl_->num_users);
}

void DatasetWriter::commit() {
  impl_->finish();
  impl_->file.close();
  impl_->output.commit();
}

}  // namespace serrate
