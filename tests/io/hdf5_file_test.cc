#include "src/io/hdf5_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "serrate/bfloat16.h"
#include "serrate/float16.h"
#include "src/io/atomic_file.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

template <typename T>
std::vector<T> counted(std::int64_t size) {
  std::vector<T> values;
  for (std::int64_t i = 0; i < size; ++i) values.push_back(T(static_cast<double>(i)));
  return values;
}

template <typename T>
std::vector<double> doubles(const std::vector<T>& values) {
  std::vector<double> result;
  using Number = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
  for (const T value : values) result.push_back(static_cast<double>(static_cast<Number>(value)));
  return result;
}

template <typename T>
class Hdf5FileTypes : public ::testing::Test {};
using Types = ::testing::Types<std::uint8_t, std::int64_t, Float16, BFloat16, float, double>;
TYPED_TEST_SUITE(Hdf5FileTypes, Types);

TYPED_TEST(Hdf5FileTypes, KeepValues) {
  const TemporaryFolder folder;
  const auto values = counted<TypeParam>(12);
  {
    auto file = Hdf5File::create(folder.file("a.h5"));
    file.write("/group/matrix", std::span(values), {4, 3});
    file.write("line", std::span(values), {12});
    file.write("none", std::span<const TypeParam>(), {0});
    file.write("no_columns", std::span<const TypeParam>(), {7, 0});
    file.close();
  }
  const auto file = Hdf5File::open(folder.file("a.h5"));
  EXPECT_EQ(doubles(file.read<TypeParam>("/group/matrix")), doubles(values));
  EXPECT_EQ(doubles(file.read<TypeParam>("line")), doubles(values));
  EXPECT_TRUE(file.read<TypeParam>("none").empty());
  EXPECT_TRUE(file.read<TypeParam>("no_columns").empty());
  const auto matrix = file.dataset<TypeParam>("/group/matrix");
  EXPECT_EQ(matrix.rank(), 2);
  EXPECT_EQ(matrix.rows(), 4);
  EXPECT_EQ(matrix.columns(), 3);
  std::vector<TypeParam> block(4);
  matrix.read_block({1, 3, 1, 3}, std::span(block));
  EXPECT_THAT(doubles(block), ElementsAre(4, 5, 7, 8));
}

// HDF5 itself finds what was written past it.
TYPED_TEST(Hdf5FileTypes, AreWhatOtherProgramsRead) {
  const TemporaryFolder folder;
  const auto values = counted<TypeParam>(4 * 3000);
  {
    auto file = Hdf5File::create(folder.file("a.h5"));
    file.write("/group/matrix", std::span(values), {4, 3000});
    file.close();
  }
  std::vector<double> read(values.size());
  const hid_t file = H5Fopen(folder.file("a.h5").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t data = H5Dopen2(file, "/group/matrix", H5P_DEFAULT);
  EXPECT_GE(H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, read.data()), 0);
  H5Dclose(data);
  H5Fclose(file);
  EXPECT_EQ(read, doubles(values));
}

TEST(Hdf5File, WritesRowsAndColumnsInAnyOrder) {
  const TemporaryFolder folder;
  auto file = Hdf5File::create(folder.file("a.h5"));
  {
    auto matrix = file.create_dataset<float>("m", {3, 4});
    matrix.write_block({0, 3, 2, 4},
                       std::span<const float>(std::vector<float>{2, 3, 6, 7, 10, 11}));
    matrix.write_block({0, 2, 0, 2}, std::span<const float>(std::vector<float>{0, 1, 4, 5}));
    matrix.write_block({2, 3, 0, 2}, std::span<const float>(std::vector<float>{8, 9}));
    EXPECT_THROW(matrix.write_rows(2, 4, std::span<const float>(std::vector<float>(8))), Error);
    EXPECT_THROW(matrix.write_rows(0, 1, std::span<const float>(std::vector<float>(3))), Error);
  }
  file.close();
  EXPECT_EQ(Hdf5File::open(folder.file("a.h5")).read<float>("m"), counted<float>(12));
}

TEST(Hdf5File, SpansManyBlocks) {
  const TemporaryFolder folder;
  const auto values = counted<double>(7 * 50'000);
  {
    auto created = Hdf5File::create(folder.file("a.h5"));
    created.write("m", std::span(values), {7, 50'000});
    created.close();
  }
  const auto file = Hdf5File::open(folder.file("a.h5"));
  EXPECT_EQ(file.read<double>("m"), values);
  std::vector<double> block(7 * 2);
  file.dataset<double>("m").read_block({0, 7, 49'998, 50'000}, std::span(block));
  EXPECT_EQ(block[2], 99'998);
  EXPECT_EQ(block[13], 349'999);
}

TEST(Hdf5File, TheSameContentIsTheSameBytesAtAnyTime) {
  const TemporaryFolder folder;
  const auto make = [&](const std::string& name) {
    auto file = Hdf5File::create(folder.file(name));
    file.create_group("/c/d");
    file.write("/a/b", std::span<const float>(counted<float>(3)), {3});
    file.write_attribute("/a", "text", "x");
    file.close();
    return testing::read_file(folder.file(name));
  };
  const std::string first = make("first.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5 would keep whole seconds
  EXPECT_TRUE(first == make("second.h5"));
}

TEST(Hdf5File, KeepsAttributes) {
  const TemporaryFolder folder;
  const std::string long_text(60'000, 'x');
  {
    auto file = Hdf5File::create(folder.file("a.h5"));
    file.create_group("/a/b");
    file.write_attribute("/", "text", "grün\nblau");
    file.write_attribute("/", "empty", "");
    file.write_attribute("/", "long", long_text);
    file.write_attribute("/", "long too", long_text);
    EXPECT_THAT(
        message_of<Error>([&] { file.write_attribute("/", "longer", long_text + "x"); }),
        HasSubstr("attribute longer of " + folder.file("a.h5") + " would have 60001 bytes"));
    file.write_attribute("/a/b", "number", std::int64_t{-1} << 62);
    file.close();
  }
  const auto file = Hdf5File::open(folder.file("a.h5"));
  EXPECT_EQ(file.read_text("/", "text"), "grün\nblau");
  EXPECT_EQ(file.read_text("/", "empty"), "");
  EXPECT_EQ(file.read_text("/", "long"), long_text);
  EXPECT_EQ(file.read_integer("/a/b", "number"), std::int64_t{-1} << 62);
  EXPECT_TRUE(file.has_attribute("/a/b", "number"));
  EXPECT_FALSE(file.has_attribute("/a/b", "text"));
  EXPECT_TRUE(file.contains("/a/b"));
  EXPECT_FALSE(file.contains("/a/c"));
  EXPECT_FALSE(file.contains("/c/b"));
  EXPECT_THAT(message_of<Error>([&] { file.read_integer("/", "text"); }), HasSubstr("text"));
  EXPECT_THAT(message_of<Error>([&] { file.read_text("/a/b", "number"); }), HasSubstr("number"));
  EXPECT_THAT(message_of<Error>([&] { file.read_text("/a", "none"); }), HasSubstr("none"));
}

TEST(Hdf5File, HasManyGroupsAndAttributes) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  auto file = Hdf5File::create(path);
  for (std::int64_t i = 0; i < 300; ++i) {
    file.create_group(fmt::format("/groups/{}", i));
    file.write_attribute(fmt::format("/groups/{}", i), "number", i);
    file.write_attribute("/groups", fmt::format("number {}", i), i);
  }
  file.close();
  const auto read = Hdf5File::open(path);
  for (std::int64_t i = 0; i < 300; ++i) {
    EXPECT_EQ(read.read_integer(fmt::format("/groups/{}", i), "number"), i);
    EXPECT_EQ(read.read_integer("/groups", fmt::format("number {}", i)), i);
  }
  EXPECT_FALSE(read.contains("/groups/300"));
}

TEST(Hdf5File, AFullDiskIsAnError) {
  const std::vector<double> values(100'000, 1.0);
  const auto write_to_full_disk = [&](const std::function<void(Hdf5File&)>& fill) {
    auto file = Hdf5File::create("/dev/full");
    fill(file);
    file.close();
  };
  const auto message = [&](const std::function<void(Hdf5File&)>& fill) {
    return message_of<Error>([&] { write_to_full_disk(fill); });
  };
  const auto no_space = HasSubstr("of /dev/full (No space left on device)");
  // At a write of values, and of what HDF5 itself writes when the file is closed.
  EXPECT_THAT(message([&](Hdf5File& file) { file.write("x", std::span(values), {100'000}); }),
              no_space);
  EXPECT_THAT(message([](Hdf5File& file) {
                for (int i = 0; i < 3000; ++i) {
                  file.write_attribute("/", std::to_string(i), std::string(1000, 'x'));
                }
              }),
              no_space);
  // HDF5 is still sound.
  const TemporaryFolder folder;
  auto file = Hdf5File::create(folder.file("a.h5"));
  file.write("x", std::span(values), {100'000});
  file.close();
  EXPECT_EQ(Hdf5File::open(folder.file("a.h5")).read<double>("x"), values);
}

TEST(Hdf5File, ManyOpeningsOfOneFile) {
  const TemporaryFolder folder;
  const auto values = counted<std::int64_t>(2'000);
  auto file = Hdf5File::create(folder.file("a.h5"));
  file.write("x", std::span(values), {2'000});
  file.close();
  auto first = std::make_unique<Hdf5File>(Hdf5File::open(folder.file("a.h5")));
  const auto second = Hdf5File::open(folder.file("a.h5"));
  EXPECT_EQ(first->read<std::int64_t>("x"), values);
  first.reset();
  EXPECT_EQ(second.read<std::int64_t>("x"), values);
  EXPECT_EQ(second.digest(), file.digest());
  EXPECT_EQ(second.file_bytes(), file.file_bytes());
}

TEST(Hdf5File, ThreadsReadAtOnce) {
  const TemporaryFolder folder;
  const auto values = counted<std::int64_t>(20'000);
  {
    auto file = Hdf5File::create(folder.file("a.h5"));
    file.write("x", std::span(values), {20'000});
    file.close();
  }
  const auto file = Hdf5File::open(folder.file("a.h5"));
  std::array<std::int64_t, 4> wrong = {};
  const auto read_all = [&](std::int64_t& count) {
    const auto column = file.dataset<std::int64_t>("x");
    std::vector<std::int64_t> part(10);
    for (std::int64_t begin = 0; begin < 2'000; begin += 10) {
      column.read_rows(begin, begin + 10, std::span(part));
      for (std::int64_t i = 0; i < 10; ++i) count += part[i] != begin + i;
    }
    count += message_of<Error>([&] { file.dataset<float>("x"); }) == "(no exception)";
  };
  {
    const std::array<std::jthread, 4> threads = {
        std::jthread(read_all, std::ref(wrong[0])), std::jthread(read_all, std::ref(wrong[1])),
        std::jthread(read_all, std::ref(wrong[2])), std::jthread(read_all, std::ref(wrong[3]))};
  }
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  const TemporaryFolder folder;
  const std::string path = folder.write("a.txt", "old");
  std::string temporary;
  {
    const AtomicFile file(path);
    temporary = file.temporary_path();
    std::ofstream(temporary) << "torn";
  }
  EXPECT_EQ(testing::read_file(path), "old");
  EXPECT_FALSE(std::filesystem::exists(temporary));
  {
    AtomicFile file(path);
    std::ofstream(file.temporary_path()) << "new";
    file.commit();
  }
  EXPECT_EQ(testing::read_file(path), "new");
  EXPECT_FALSE(std::filesystem::exists(temporary));
  EXPECT_THAT(message_of<Error>([&] { AtomicFile(folder.file("no/a.txt")); }),
              HasSubstr("there is no folder " + folder.file("no")));
}

}  // namespace
}  // namespace serrate
