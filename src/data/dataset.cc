#include "src/data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "src/data/dataset_format.h"
#include "src/io/hdf5_file.h"

namespace serrate {
namespace {

namespace names = dataset_format;

/// A file that is sealed and yet is not what docs/dataset_format.md promises.
Error broken(const std::string& path, const std::string& how) {
  return usage_error(fmt::format("{} is not a sound dataset ({}): make it again", path, how));
}

/// Offsets into `num_values` values must not fall or leave them.
void check_offsets(std::span<const std::int64_t> offsets, std::int64_t num_values,
                   const std::string& path, const std::string& name) {
  if (offsets.front() >= 0 && offsets.back() <= num_values && std::ranges::is_sorted(offsets)) {
    return;
  }
  throw broken(path,
               fmt::format("{} falls or leaves the {} values it points into", name, num_values));
}

void check_events(std::int64_t begin, std::int64_t end, std::int64_t num_events) {
  check(0 <= begin && begin <= end && end <= num_events, "events are outside of the dataset");
}

/// The place of the first id outside of a vocabulary, or -1.
std::int64_t find_unknown(std::span<const std::int64_t> ids, const DatasetFeature& feature) {
  const auto found = std::ranges::find_if(
      ids, [&](std::int64_t id) { return id < 0 || id >= feature.vocabulary_size; });
  return found == ids.end() ? -1 : found - ids.begin();
}

void read_part(const Hdf5Dataset& column, std::int64_t begin, std::int64_t end,
               std::vector<std::int64_t>& values) {
  values.resize(static_cast<std::size_t>(end - begin));
  column.read_rows(begin, end, std::span(values));
}

std::vector<std::int64_t> read_part(const Hdf5Dataset& column, std::int64_t begin,
                                    std::int64_t end) {
  std::vector<std::int64_t> values;
  read_part(column, begin, end, values);
  return values;
}

/// The texts of ids, in the file.
struct StoredVocabulary {
  Hdf5Dataset bytes;
  Hdf5Dataset offsets;

  std::string text(std::int64_t id, const std::string& path) const {
    const auto range = read_part(offsets, id, id + 2);
    check_offsets(range, bytes.rows(), path, offsets.name());
    std::string result(static_cast<std::size_t>(range[1] - range[0]), '\0');
    bytes.read_rows(range[0], range[1],
                    std::span(reinterpret_cast<std::uint8_t*>(result.data()), result.size()));
    return result;
  }
};

struct StoredFeature {
  Hdf5Dataset values;
  std::optional<Hdf5Dataset> offsets;
  std::optional<StoredVocabulary> vocabulary;
};

Hdf5Dataset open_column(const Hdf5File& file, const std::string& name, std::int64_t rows) {
  auto column = file.dataset<std::int64_t>(name);
  if (column.rank() != 1 || column.rows() != rows) {
    throw usage_error(fmt::format("{} has the shape [{}{}] instead of [{}]", name, column.rows(),
                                  column.rank() == 2 ? fmt::format(", {}", column.columns()) : "",
                                  rows));
  }
  return column;
}

std::optional<StoredVocabulary> open_vocabulary(const Hdf5File& file, const std::string& group,
                                                std::int64_t size) {
  if (!file.contains(group)) return std::nullopt;
  return StoredVocabulary{file.dataset<std::uint8_t>(group + "/bytes"),
                          open_column(file, group + "/offsets", size + 1)};
}

StoredFeature open_feature(const Hdf5File& file, const DatasetFeature& feature,
                           std::int64_t num_events) {
  const std::string group = names::feature_group(feature.name);
  std::optional<Hdf5Dataset> offsets;
  std::int64_t num_values = num_events;
  if (file.contains(group + "/offsets")) {
    offsets = open_column(file, group + "/offsets", num_events + 1);
    num_values = read_part(*offsets, num_events, num_events + 1).front();
    if (const std::int64_t first = read_part(*offsets, 0, 1).front(); first != 0) {
      throw usage_error(fmt::format("{} begins with {} instead of 0", offsets->name(), first));
    }
  }
  return {open_column(file, group + "/values", num_values), std::move(offsets),
          open_vocabulary(file, names::vocabulary_group(feature.name), feature.vocabulary_size)};
}

std::vector<std::string> split_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

struct Dataset::Impl {
  explicit Impl(Hdf5File hdf5_file) : file(std::move(hdf5_file)) {
    check_format();
    // Each of them has a number in the file.
    num_users = read_count("/", "num_users", file.file_bytes());
    num_events = read_count("/", "num_events", file.file_bytes());
    open_users();
    timestamps = open_column(file, names::kTimestamps, num_events);
    if (file.contains(names::kBaskets)) baskets = open_column(file, names::kBaskets, num_events);
    for (const auto& name : split_lines(file.read_text("/", "features"))) {
      if (!names::is_feature_name(name) ||
          std::ranges::find(features, name, &DatasetFeature::name) != features.end()) {
        throw usage_error(
            fmt::format("attribute features lists '{}', which is not a name or appears "
                        "twice",
                        name));
      }
      features.push_back(
          {name, read_count(names::feature_group(name), "vocabulary_size", names::kMostIds)});
      stored_features.push_back(open_feature(file, features.back(), num_events));
    }
    if (stored_features.front().offsets) {
      throw usage_error(
          fmt::format("feature {} has offsets (the first feature is the item, one an event)",
                      features.front().name));
    }
  }

  void check_format() const {
    if (!file.has_attribute("/", "format") || file.read_text("/", "format") != names::kFormat) {
      throw usage_error("it is not a serrate dataset; make one with 'serrate convert'");
    }
    const std::int64_t version = file.read_integer("/", "version");
    if (version != names::kVersion) {
      throw usage_error(
          fmt::format("its format version is {}, this program reads {}; convert its source again",
                      version, names::kVersion));
    }
  }

  std::int64_t read_count(const std::string& object, const char* name, std::int64_t most) const {
    const std::int64_t count = file.read_integer(object, name);
    if (count < 0 || count > most) {
      throw usage_error(fmt::format("attribute {} of {} is {} (0 to {} are possible)", name, object,
                                    count, most));
    }
    return count;
  }

  void open_users() {
    const auto column = open_column(file, names::kUserOffsets, num_users + 1);
    user_offsets = read_part(column, 0, num_users + 1);
    check_offsets(user_offsets, num_events, file.path(), column.name());
    if (user_offsets.front() != 0 || user_offsets.back() != num_events) {
      throw usage_error(fmt::format("{} covers events {} to {} of {}", column.name(),
                                    user_offsets.front(), user_offsets.back(), num_events));
    }
    user_vocabulary = open_vocabulary(file, names::kUserVocabulary, num_users);
  }

  Error unknown_id(const DatasetFeature& feature, std::int64_t event, std::int64_t position,
                   std::int64_t id) const {
    const std::int64_t user =
        std::ranges::upper_bound(user_offsets, event) - user_offsets.begin() - 1;
    return usage_error(fmt::format(
        "{}: feature \"{}\": event {} of user {} (event {} of all) has id {} at position {}, but "
        "there are {} (ids are 0 to {}): correct the data, or leave such ids out or send them to a "
        "row of their own (invalid ids: drop, oov)",
        file.path(), feature.name, event - user_offsets[static_cast<std::size_t>(user)], user,
        event, id, position, feature.vocabulary_size, feature.vocabulary_size - 1));
  }

  Hdf5File file;
  std::int64_t num_users = 0;
  std::int64_t num_events = 0;
  std::vector<std::int64_t> user_offsets;
  std::optional<StoredVocabulary> user_vocabulary;
  Hdf5Dataset timestamps;
  std::optional<Hdf5Dataset> baskets;
  std::vector<DatasetFeature> features;
  std::vector<StoredFeature> stored_features;  // in the order of `features`
};

Dataset::Dataset(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Dataset::~Dataset() = default;
Dataset::Dataset(Dataset&&) noexcept = default;
Dataset& Dataset::operator=(Dataset&&) noexcept = default;

Dataset Dataset::open(const std::string& path) {
  Hdf5File file = Hdf5File::open(path);  // its errors speak of the file already
  try {
    return Dataset(std::make_unique<Impl>(std::move(file)));
  } catch (const Error& error) {
    if (std::string_view(error.what()).starts_with(path)) throw;
    throw Error(fmt::format("cannot use {} as a dataset ({})", path, error.what()), error.kind());
  }
}

std::string Dataset::digest() const {
  return impl_->file.digest();
}

void Dataset::verify() const {
  constexpr std::int64_t kEventsAtOnce = 1 << 17;
  impl_->file.verify();
  std::vector<std::int64_t> values;
  FeatureBags bags;
  for (std::int64_t begin = 0; begin < num_events(); begin += kEventsAtOnce) {
    const std::int64_t end = std::min(begin + kEventsAtOnce, num_events());
    read_timestamps(std::max<std::int64_t>(begin - 1, 0), end, values);
    for (std::size_t f = 0; f < features().size(); ++f) {
      read_feature(static_cast<std::int64_t>(f), begin, end, bags);
      check_ids(static_cast<std::int64_t>(f), begin, bags);
    }
  }
  const auto verify_vocabulary = [&](const std::optional<StoredVocabulary>& vocabulary) {
    if (!vocabulary) return;
    const std::int64_t rows = vocabulary->offsets.rows();
    for (std::int64_t begin = 0; begin + 1 < rows; begin += kEventsAtOnce) {
      read_part(vocabulary->offsets, begin, std::min(begin + kEventsAtOnce + 1, rows), values);
      check_offsets(values, vocabulary->bytes.rows(), impl_->file.path(),
                    vocabulary->offsets.name());
    }
  };
  for (const StoredFeature& feature : impl_->stored_features) verify_vocabulary(feature.vocabulary);
  verify_vocabulary(impl_->user_vocabulary);
}

std::int64_t Dataset::num_users() const {
  return impl_->num_users;
}
std::int64_t Dataset::num_events() const {
  return impl_->num_events;
}
const std::vector<DatasetFeature>& Dataset::features() const {
  return impl_->features;
}
bool Dataset::has_baskets() const {
  return impl_->baskets.has_value();
}
const std::vector<std::int64_t>& Dataset::user_offsets() const {
  return impl_->user_offsets;
}

std::int64_t Dataset::feature_index(const std::string& name) const {
  const auto found = std::ranges::find(features(), name, &DatasetFeature::name);
  if (found == features().end()) {
    std::vector<std::string> known;
    for (const auto& feature : features()) known.push_back(feature.name);
    throw usage_error(fmt::format("{} has no feature '{}' (it has: {})", impl_->file.path(), name,
                                  fmt::join(known, ", ")));
  }
  return found - features().begin();
}

void Dataset::read_feature(std::int64_t feature, std::int64_t begin, std::int64_t end,
                           FeatureBags& bags) const {
  const auto& stored = impl_->stored_features.at(static_cast<std::size_t>(feature));
  check_events(begin, end, num_events());
  if (stored.offsets) {
    read_part(*stored.offsets, begin, end + 1, bags.offsets);
    check_offsets(bags.offsets, stored.values.rows(), impl_->file.path(), stored.offsets->name());
    const std::int64_t first = bags.offsets.front();
    read_part(stored.values, first, bags.offsets.back(), bags.values);
    for (std::int64_t& offset : bags.offsets) offset -= first;
  } else {
    read_part(stored.values, begin, end, bags.values);
    bags.offsets.resize(static_cast<std::size_t>(end - begin + 1));
    std::iota(bags.offsets.begin(), bags.offsets.end(), std::int64_t{0});
  }
}

void Dataset::check_ids(std::int64_t feature, std::int64_t begin, const FeatureBags& bags) const {
  const DatasetFeature& of = features().at(static_cast<std::size_t>(feature));
  const std::int64_t place = find_unknown(bags.values, of);
  if (place < 0) return;
  // The last bag that begins there or before: those it shares its begin with are empty.
  const std::int64_t bag = std::ranges::upper_bound(bags.offsets, place) - bags.offsets.begin() - 1;
  throw impl_->unknown_id(of, begin + bag, place - bags.offsets[static_cast<std::size_t>(bag)],
                          bags.values[static_cast<std::size_t>(place)]);
}

void Dataset::read_items(std::int64_t begin, std::int64_t end, std::vector<std::int64_t>& items,
                         UnknownIds unknown_ids) const {
  check_events(begin, end, num_events());
  read_part(impl_->stored_features.front().values, begin, end, items);
  if (unknown_ids == UnknownIds::kKeep) return;
  if (const std::int64_t place = find_unknown(items, features().front()); place >= 0) {
    throw impl_->unknown_id(features().front(), begin + place, 0,
                            items[static_cast<std::size_t>(place)]);
  }
}

void Dataset::read_timestamps(std::int64_t begin, std::int64_t end,
                              std::vector<std::int64_t>& timestamps) const {
  check_events(begin, end, num_events());
  read_part(impl_->timestamps, begin, end, timestamps);
  for (std::int64_t event = begin; event < end; ++event) {
    const std::int64_t time = timestamps[event - begin];
    if (time < -names::kLatestTime || time > names::kLatestTime) {
      throw broken(impl_->file.path(),
                   fmt::format("{}: event {} has time {}, seconds since 1970 are expected",
                               names::kTimestamps, event, time));
    }
    if (event == begin || time >= timestamps[event - begin - 1]) continue;
    if (std::ranges::binary_search(user_offsets(), event)) continue;  // another user's first
    throw broken(impl_->file.path(), fmt::format("{}: event {} is earlier than the one of the same "
                                                 "user before it",
                                                 names::kTimestamps, event));
  }
}

void Dataset::read_baskets(std::int64_t begin, std::int64_t end,
                           std::vector<std::int64_t>& baskets) const {
  check(has_baskets(), "the dataset has no baskets");
  check_events(begin, end, num_events());
  read_part(*impl_->baskets, begin, end, baskets);
}

std::string Dataset::vocabulary_entry(std::int64_t feature, std::int64_t id) const {
  const auto index = static_cast<std::size_t>(feature);
  const auto& vocabulary = impl_->stored_features.at(index).vocabulary;
  check(0 <= id && id < features()[index].vocabulary_size, "id is outside of the vocabulary");
  return vocabulary ? vocabulary->text(id, impl_->file.path()) : std::to_string(id);
}

std::string Dataset::user_entry(std::int64_t user) const {
  check(0 <= user && user < num_users(), "user is outside of the dataset");
  return impl_->user_vocabulary ? impl_->user_vocabulary->text(user, impl_->file.path())
                                : std::to_string(user);
}

std::string Dataset::attribute(const std::string& name) const {
  return impl_->file.read_text("/", name);
}

}  // namespace serrate
