// What is found wrong with the file of a dataset.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "src/data/dataset.h"
#include "src/data/dataset_writer.h"
#include "src/data/describe_dataset.h"
#include "src/data/split.h"
#include "tests/data/example_dataset.h"
#include "tests/support/latest_hdf5.h"
#include "tests/support/seal.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using Ids = std::vector<std::int64_t>;

// Damage to an otherwise sound dataset, and a part of the message that opening it gives.
struct Damage {
  std::string name;
  std::function<void(hid_t)> apply;
  std::string message;
};

void replace(hid_t file, const char* name, hid_t type, const std::vector<hsize_t>& dims,
             const void* values) {
  H5Ldelete(file, name, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  const hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  H5Dclose(data);
  H5Sclose(space);
}

void replace_attribute(hid_t file, const char* object, const char* name, std::int64_t value) {
  H5Adelete_by_name(file, object, name, H5P_DEFAULT);
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate_by_name(file, object, name, H5T_STD_I64LE, space, H5P_DEFAULT,
                                            H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, H5T_STD_I64LE, &value);
  H5Aclose(attribute);
  H5Sclose(space);
}

void replace_text(hid_t file, const char* name, const std::string& text) {
  H5Adelete(file, name);
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, text.size());
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, type, text.data());
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

std::vector<Damage> damages() {
  static const std::int64_t numbers[8] = {0, 3, 4, 4, 4, 4, 4, 4};
  static const std::int64_t falling[3] = {0, 5, 4};
  static const std::int64_t late[3] = {1, 3, 4};
  static const float floats[4] = {};
  return {
      {"format", [](hid_t f) { H5Adelete(f, "format"); }, "not a serrate dataset"},
      {"version", [](hid_t f) { replace_attribute(f, "/", "version", 1); },
       "its format version is 1, this program reads 2; convert its source again"},
      {"negative count", [](hid_t f) { replace_attribute(f, "/", "num_users", -1); },
       "num_users of / is -1"},
      {"count", [](hid_t f) { replace_attribute(f, "/", "num_events", 5); }, "/user_offsets"},
      {"no count", [](hid_t f) { H5Adelete(f, "num_events"); }, "no attribute num_events"},
      {"no column", [](hid_t f) { H5Ldelete(f, "/timestamps", H5P_DEFAULT); },
       "has no /timestamps"},
      {"type", [](hid_t f) { replace(f, "/timestamps", H5T_IEEE_F32LE, {4}, floats); },
       "/timestamps of"},
      {"size", [](hid_t f) { replace(f, "/baskets", H5T_STD_I64LE, {3}, numbers); },
       "/baskets has the shape [3] instead of [4]"},
      {"rank", [](hid_t f) { replace(f, "/baskets", H5T_STD_I64LE, {4, 1}, numbers); },
       "/baskets has the shape [4, 1]"},
      {"falling offsets", [](hid_t f) { replace(f, "/user_offsets", H5T_STD_I64LE, {3}, falling); },
       "/user_offsets falls or leaves the 4 values"},
      {"late offsets", [](hid_t f) { replace(f, "/user_offsets", H5T_STD_I64LE, {3}, late); },
       "covers events 1 to 4 of 4"},
      {"values", [](hid_t f) { replace(f, "/features/tags/values", H5T_STD_I64LE, {6}, numbers); },
       "/features/tags/values has the shape [6] instead of [5]"},
      {"no vocabulary size",
       [](hid_t f) { H5Adelete_by_name(f, "/features/tags", "vocabulary_size", H5P_DEFAULT); },
       "vocabulary_size"},
      {"vocabulary",
       [](hid_t f) { replace(f, "/vocabularies/item/offsets", H5T_STD_I64LE, {3}, numbers); },
       "/vocabularies/item/offsets has the shape [3] instead of [4]"},
      {"bags of items",
       [](hid_t f) {
         H5Lmove(f, "/features/tags/offsets", f, "/features/item/offsets", H5P_DEFAULT,
                 H5P_DEFAULT);
       },
       "/features/item/values has the shape [4] instead of [5]"},
      {"external link",
       [](hid_t f) {
         H5Ldelete(f, "/timestamps", H5P_DEFAULT);
         H5Lcreate_external("b.h5", "/timestamps", f, "/timestamps", H5P_DEFAULT, H5P_DEFAULT);
       },
       "external link"},
      {"users nobody has room for",
       [](hid_t f) { replace_attribute(f, "/", "num_users", INT64_MAX); },
       "num_users of / is 9223372036854775807"},
      {"ids no table has rows for",
       [](hid_t f) {
         replace_attribute(f, "/features/tags", "vocabulary_size", std::int64_t{1} << 60);
       },
       "vocabulary_size of /features/tags is 1152921504606846976 (0 to 1099511627776"},
      {"first offset",
       [](hid_t f) {
         static const std::int64_t offsets[5] = {1, 2, 2, 3, 5};
         replace(f, "/features/tags/offsets", H5T_STD_I64LE, {5}, offsets);
       },
       "/features/tags/offsets begins with 1"},
      {"names", [](hid_t f) { replace_text(f, "features", "item\ntags\nitem"); }, "lists 'item'"},
      {"no name", [](hid_t f) { replace_text(f, "features", "item\n../item"); }, "lists '../item'"},
      {"chunks",
       [](hid_t f) {
         H5Ldelete(f, "/timestamps", H5P_DEFAULT);
         const hsize_t rows = 4;
         const hid_t space = H5Screate_simple(1, &rows, nullptr);
         const hid_t chunked = H5Pcreate(H5P_DATASET_CREATE);
         H5Pset_chunk(chunked, 1, &rows);
         H5Dclose(
             H5Dcreate2(f, "/timestamps", H5T_STD_I64LE, space, H5P_DEFAULT, chunked, H5P_DEFAULT));
         H5Pclose(chunked);
         H5Sclose(space);
       },
       "chunked"},
  };
}

TEST(Dataset, NamesWhatIsWrongWithAFile) {
  const TemporaryFolder folder;
  for (const auto& damage : damages()) {
    const std::string path = folder.file(damage.name + ".h5");
    write_example(path);
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, testing::latest_hdf5());
    ASSERT_GE(file, 0);
    damage.apply(file);
    H5Fclose(file);
    testing::seal_again(path);
    EXPECT_THAT(message_of<Error>([&] { Dataset::open(path); }),
                AllOf(HasSubstr(path), HasSubstr(damage.message)))
        << damage.name;
  }
}

TEST(Dataset, RefusesATruncatedFileAtAnyLength) {
  const TemporaryFolder folder;
  write_example(folder.file("a.h5"));
  const std::string bytes = testing::read_file(folder.file("a.h5"));
  for (std::size_t length = 0; length < bytes.size(); length += 97) {
    const std::string path = folder.write("cut.h5", bytes.substr(0, length));
    EXPECT_THAT(message_of<Error>([&] { Dataset::open(path); }), HasSubstr(path)) << length;
  }
}

TEST(Dataset, FindsIdsOutsideOfTheVocabulary) {
  const TemporaryFolder folder;
  write_example(folder.file("a.h5"));
  {
    const hid_t file = H5Fopen(folder.file("a.h5").c_str(), H5F_ACC_RDWR, testing::latest_hdf5());
    const std::int64_t items[4] = {2, 0, 3, 1};
    replace(file, "/features/item/values", H5T_STD_I64LE, {4}, items);
    const std::int64_t offsets[5] = {0, 2, 9, 3, 5};
    replace(file, "/features/tags/offsets", H5T_STD_I64LE, {5}, offsets);
    H5Fclose(file);
    testing::seal_again(folder.file("a.h5"));
  }
  const auto dataset = Dataset::open(folder.file("a.h5"));
  Ids items;
  FeatureBags bags;
  dataset.read_items(0, 2, items);
  EXPECT_THAT(message_of<Error>([&] { dataset.read_items(1, 3, items); }),
              HasSubstr("feature \"item\": event 2 of user 0 (event 2 of all) has id 3"));
  dataset.read_feature(0, 1, 3, bags);  // left to ShardedEmbedding and its policy
  EXPECT_EQ(bags.values, (Ids{0, 3}));
  EXPECT_THAT(message_of<Error>([&] { dataset.check_ids(0, 1, bags); }),
              HasSubstr("feature \"item\": event 2 of user 0 (event 2 of all) has id 3"));
  EXPECT_THAT(message_of<Error>([&] { dataset.read_feature(1, 0, 3, bags); }),
              HasSubstr("/features/tags/offsets falls or leaves the 5 values"));
  EXPECT_THROW(dataset.read_feature(1, 1, 2, bags), Error);
}

// A dataset of which one column was replaced, under a right seal.
Dataset with_column(const TemporaryFolder& folder, const char* name,
                    const std::vector<std::int64_t>& values) {
  const std::string path = folder.file("changed.h5");
  write_example(path);
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDWR, testing::latest_hdf5());
  replace(file, name, H5T_STD_I64LE, {values.size()}, values.data());
  H5Fclose(file);
  testing::seal_again(path);
  return Dataset::open(path);
}

TEST(Dataset, TimesNeverFallWithinAUser) {
  const TemporaryFolder folder;
  const auto message = [&](const Ids& stored, const std::function<void(const Dataset&)>& read) {
    const auto dataset = with_column(folder, "/timestamps", stored);
    return message_of<Error>([&] { read(dataset); });
  };
  Ids times;
  const auto read_all = [&](const Dataset& dataset) { dataset.read_timestamps(0, 4, times); };
  // Users have events 0 to 2, and 3.
  EXPECT_EQ(message({-5, -5, 20, 3}, read_all), "(no exception)");
  EXPECT_THAT(message({10, 9, 20, 30}, read_all), HasSubstr("event 1 is earlier"));
  EXPECT_THAT(message({10, 20, 10, 30}, read_all), HasSubstr("event 2 is earlier"));
  EXPECT_THAT(message({0, 0, 6'000'000'000'001, 0}, read_all),
              HasSubstr("event 2 has time 6000000000001"));
  EXPECT_THAT(message({0, 0, 0, INT64_MIN}, read_all), HasSubstr("event 3 has time"));
  // Only what is read can be found out of order, but every split reads all of it.
  EXPECT_EQ(message({10, 9, 20, 30},
                    [&](const Dataset& dataset) { dataset.read_timestamps(1, 4, times); }),
            "(no exception)");
  for (const auto kind : {SplitKind::kLastItem, SplitKind::kLastBasket, SplitKind::kTime}) {
    EXPECT_THAT(message({10, 9, 20, 30}, [&](const Dataset& d) { make_split(d, kind); }),
                HasSubstr("event 1 is earlier"));
  }
}

TEST(Dataset, VerifiesAllThatTheFormatPromises) {
  const TemporaryFolder folder;
  const auto message = [&](const char* column, const Ids& values) {
    const auto dataset = with_column(folder, column, values);
    return message_of<Error>([&] { dataset.verify(); });
  };
  EXPECT_EQ(message("/timestamps", {1, 2, 3, 4}), "(no exception)");
  EXPECT_THAT(message("/timestamps", {2, 1, 3, 4}), HasSubstr("event 1 is earlier"));
  EXPECT_THAT(
      message("/features/item/values", {0, 1, 2, 3}),
      HasSubstr("feature \"item\": event 0 of user 1 (event 3 of all) has id 3 at position 0"));
  EXPECT_THAT(
      message("/features/tags/values", {0, 1, -1, 0, 0}),
      HasSubstr("feature \"tags\": event 2 of user 0 (event 2 of all) has id -1 at position 0"));
  EXPECT_THAT(message("/features/tags/offsets", {0, 3, 2, 3, 5}),
              HasSubstr("/features/tags/offsets falls"));
  EXPECT_THAT(message("/vocabularies/item/offsets", {0, 5, 4, 9}),
              HasSubstr("/vocabularies/item/offsets falls"));
  EXPECT_THAT(message("/user_vocabulary/offsets", {0, 4, 8}),
              HasSubstr("/user_vocabulary/offsets falls or leaves the 7 values"));
  EXPECT_THAT(message_of<Error>([&] { describe_dataset(folder.file("changed.h5")); }),
              HasSubstr("/user_vocabulary/offsets falls"));
}

TEST(Dataset, ADigestNamesTheContent) {
  const TemporaryFolder folder;
  write_example(folder.file("a.h5"));
  write_example(folder.file("b.h5"));
  const std::string digest = Dataset::open(folder.file("a.h5")).digest();
  EXPECT_EQ(Dataset::open(folder.file("b.h5")).digest(), digest);
  EXPECT_NE(with_column(folder, "/timestamps", {1, 2, 3, 4}).digest(), digest);
  EXPECT_THAT(describe_dataset(folder.file("a.h5")), HasSubstr(digest));
}

// Damage to any byte is found, and what is cut or changed while it is open too.
TEST(Dataset, FindsDamageWhereverItIs) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  write_example(path);
  const std::string bytes = testing::read_file(path);
  for (std::size_t at = 0; at < bytes.size(); at += 61) {
    std::string damaged = bytes;
    damaged[at] ^= 0x10;
    folder.write("a.h5", damaged);
    ASSERT_THAT(message_of<Error>([&] { Dataset::open(path).verify(); }), HasSubstr(path)) << at;
  }
}

TEST(Dataset, NoticesWhatHappensWhileItIsOpen) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  const std::int64_t events = 100'000;
  DatasetWriter writer(path,
                       {.num_users = 1, .num_events = events, .features = {{"item", events}}});
  Ids values(static_cast<std::size_t>(events));
  std::iota(values.begin(), values.end(), std::int64_t{0});
  writer.append_user({values, {}, {{values, {}}}});
  writer.commit();
  const auto dataset = Dataset::open(path);
  const std::string bytes = testing::read_file(path);
  Ids items;
  dataset.read_items(90'000, 90'010, items);
  EXPECT_EQ(items.front(), 90'000);

  std::filesystem::resize_file(path, bytes.size() / 2);
  EXPECT_THAT(message_of<Error>([&] { dataset.read_items(80'000, 80'010, items); }),
              AllOf(HasSubstr(path), HasSubstr("was cut off"), HasSubstr("are missing")));
  folder.write("a.h5", std::string(bytes.size(), '\0'));
  EXPECT_THAT(message_of<Error>([&] { dataset.read_items(80'000, 80'010, items); }),
              AllOf(HasSubstr(path), HasSubstr("is damaged (bytes ")));
  // A new file under the name is another file.
  std::filesystem::remove(path);
  folder.write("a.h5", "other");
  EXPECT_THROW(Dataset::open(path), Error);
}

}  // namespace
}  // namespace serrate
