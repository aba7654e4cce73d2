#include "tests/fuzz/check_dataset.h"

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset.h"
#include "src/data/dataset_writer.h"
#include "src/data/sequence_reader.h"
#include "src/data/split.h"
#include "tests/fuzz/hdf5_edits.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/verdict.h"

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
  writer.append_user({times, baskets, {{items, {}}, {tags, tag_offsets}}});
  const Ids times2 = {5, 6}, baskets2 = {9, 9}, items2 = {1, 0}, tags2 = {0, 0, 1},
            tag_offsets2 = {0, 2, 3};
  writer.append_user({times2, baskets2, {{items2, {}}, {tags2, tag_offsets2}}});
  Vocabulary item_texts, users;
  for (const char* text : {"apple", "", "pear"}) item_texts.add(text);
  for (const char* text : {"anna", "bob"}) users.add(text);
  writer.write_vocabulary(0, item_texts);
  writer.write_user_vocabulary(users);
  writer.commit();
}

Hdf5Edits small_dataset() {
  const std::string path =
      std::filesystem::temp_directory_path() / ("fuzz" + std::to_string(::getpid()) + ".h5");
  write_small_dataset(path);
  Hdf5Edits small(read_sealed(path));
  std::filesystem::remove(path);
  return small;
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
  for (const auto kind : {SplitKind::kLastItem, SplitKind::kLastBasket}) {
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
  switch (static_cast<unsigned char>(input[0]) % 3) {
    case 0:
      file.write(rest);
      break;
    case 1: {
      static const Hdf5Edits small = small_dataset();
      write_sealed(file.path(), small.apply(rest));
      break;
    }
    default:
      write_sealed(file.path(), rest);
  }
  try {
    read_dataset(file.path());
  } catch (const Error&) {
  } catch (const std::exception& error) {
    fail("not an Error", error.what());
  }
}

}  // namespace serrate
