#include "tests/fuzz/check_dataset.h"

#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <string_view>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset.h"
#include "src/data/dataset_writer.h"
#include "src/data/sequence_reader.h"
#include "src/data/split.h"
#include "src/io/sealed_file.h"
#include "tests/fuzz/memory_file.h"

// HDF5's checksum of metadata (Jenkins' lookup3), of its library and not of its headers.
extern "C" std::uint32_t H5_checksum_lookup3(const void* bytes, std::size_t size,
                                             std::uint32_t start);

namespace serrate {
namespace {

using Ids = std::vector<std::int64_t>;

void write_small_dataset(const std::string& path) {
  DatasetWriter writer(path, {.num_users = 2,
                              .num_events = 5,
                              .with_baskets = true,
                              .features = {{"item", 3}, {"tags", 2, 6}},
                              .source = "fuzz",
                              .licence = "none"});
  const Ids times = {10, 10, 20}, baskets = {7, 7, 8}, items = {2, 0, 2};
  const Ids tags = {1, 0, 1}, tag_offsets = {0, 2, 2, 3};
  writer.append_user({times, baskets, {{items, {}, {}}, {tags, tag_offsets, {}}}});
  const Ids times2 = {5, 6}, baskets2 = {9, 9}, items2 = {1, 0}, tags2 = {0, 0, 1},
            tag_offsets2 = {0, 2, 3};
  writer.append_user({times2, baskets2, {{items2, {}, {}}, {tags2, tag_offsets2, {}}}});
  Vocabulary item_texts, users;
  for (const char* text : {"apple", "", "pear"}) item_texts.add(text);
  for (const char* text : {"anna", "bob"}) users.add(text);
  writer.write_vocabulary(0, item_texts);
  writer.write_user_vocabulary(users);
  writer.commit();
}

/// A part of the metadata and its checksum behind it.
struct Checksummed {
  std::size_t begin = 0;
  std::size_t end = 0;  // where the checksum is
};

struct SmallDataset {
  std::string content;  // without its seal
  std::vector<Checksummed> metadata;

  SmallDataset() {
    const std::string path =
        std::filesystem::temp_directory_path() / ("fuzz" + std::to_string(::getpid()) + ".h5");
    write_small_dataset(path);
    const auto file = SealedFile::open(path);
    content.resize(static_cast<std::size_t>(file->size()));
    file->read(0, std::as_writable_bytes(std::span(content)));
    std::filesystem::remove(path);
    for (const std::string_view signature : {"\x89HDF", "OHDR", "OCHK", "FRHP", "FHDB", "BTHD"}) {
      for (std::size_t at = content.find(signature); at != content.npos;
           at = content.find(signature, at + 1)) {
        find_checksum(at);
      }
    }
    if (metadata.size() < 5) std::abort();
  }

  /// How long the part is, the checksum tells.
  void find_checksum(std::size_t begin) {
    for (std::size_t end = begin + 8; end + 4 <= content.size() && end < begin + 4096; ++end) {
      std::uint32_t stored = 0;
      std::memcpy(&stored, &content[end], sizeof(stored));
      if (stored != H5_checksum_lookup3(&content[begin], end - begin, 0)) continue;
      metadata.push_back({begin, end});
      return;
    }
  }
};

std::string apply_edits(std::string_view edits) {
  static const SmallDataset small;
  std::string content = small.content;
  for (; edits.size() >= 3; edits.remove_prefix(3)) {
    const auto low = static_cast<unsigned char>(edits[0]);
    const auto high = static_cast<unsigned char>(edits[1]);
    content[(low | high << 8) % content.size()] = edits[2];
  }
  for (const Checksummed& part : small.metadata) {
    const std::uint32_t checksum =
        H5_checksum_lookup3(&content[part.begin], part.end - part.begin, 0);
    std::memcpy(&content[part.end], &checksum, sizeof(checksum));
  }
  return content;
}

void read_dataset(const std::string& path) {
  const auto dataset = Dataset::open(path);
  for (const char* name : {"source", "licence", "created_by"}) {
    static_cast<void>(dataset.attribute(name));
  }
  dataset.verify();
  for (std::size_t f = 0; f < dataset.features().size(); ++f) {
    const std::int64_t size = std::min<std::int64_t>(dataset.features()[f].vocabulary_size, 5);
    for (std::int64_t id = 0; id < size; ++id) {
      static_cast<void>(dataset.vocabulary_entry(static_cast<std::int64_t>(f), id));
    }
  }
  for (std::int64_t user = 0; user < std::min<std::int64_t>(dataset.num_users(), 5); ++user) {
    static_cast<void>(dataset.user_entry(user));
  }
  for (const auto kind : {SplitKind::kLastItem, SplitKind::kLastBasket, SplitKind::kTime}) {
    const Split split = make_split(dataset, kind);
    ReaderOptions options;
    options.batch_size = 2;
    options.max_length = 2;
    const SequenceReader reader(dataset, split, options);
    static_cast<void>(reader.read(0));
  }
}

}  // namespace

void check_dataset(const std::string& input) {
  if (input.empty()) return;
  MemoryFile file;
  const std::string_view rest = std::string_view(input).substr(1);
  if (input[0] & 1) {
    const std::string content = apply_edits(rest);
    const auto sealed = SealedFile::create(file.path());
    sealed->write(0, std::as_bytes(std::span(content)));
    sealed->seal();
  } else {
    file.write(rest);
  }
  try {
    read_dataset(file.path());
  } catch (const Error&) {
  } catch (const std::exception& error) {
    std::fprintf(stderr, "not an Error: %s\n", error.what());
    std::abort();
  }
}

}  // namespace serrate
