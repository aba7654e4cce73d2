// Files that Hdf5File refuses: damaged ones, and those that it would not have written.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "src/io/hdf5_file.h"
#include "tests/support/latest_hdf5.h"
#include "tests/support/seal.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

TEST(Hdf5File, NamesTheFileAndTheCause) {
  const TemporaryFolder folder;
  const std::string missing = folder.file("missing.h5");
  EXPECT_THAT(message_of<Error>([&] { Hdf5File::open(missing); }),
              ::testing::AllOf(HasSubstr(missing), HasSubstr("No such file")));
  const std::string text = folder.write("text.h5", "user,item\n1,2\n");
  EXPECT_THAT(message_of<Error>([&] { Hdf5File::open(text); }),
              ::testing::AllOf(HasSubstr(text), HasSubstr("has no seal")));
  EXPECT_THAT(message_of<Error>([&] { Hdf5File::create(folder.file("no/folder.h5")); }),
              HasSubstr("no/folder.h5"));
}

TEST(Hdf5File, RefusesOtherTypesAndShapes) {
  const TemporaryFolder folder;
  {
    auto created = Hdf5File::create(folder.file("a.h5"));
    created.write<float>("floats", std::vector<float>{0, 1, 2}, {3});
    created.create_group("group");
    created.close();
  }
  const auto file = Hdf5File::open(folder.file("a.h5"));
  EXPECT_THAT(
      message_of<Error>([&] { file.dataset<std::int64_t>("floats"); }),
      HasSubstr("floats of " + folder.file("a.h5") + " does not hold values of type int64"));
  EXPECT_THAT(message_of<Error>([&] { file.dataset<float>("other"); }), HasSubstr("has no other"));
  EXPECT_THAT(message_of<Error>([&] { file.dataset<float>("group"); }),
              HasSubstr("group of " + folder.file("a.h5") + " is not a dataset"));
  const auto floats = file.dataset<float>("floats");
  std::vector<float> values(2);
  EXPECT_THROW(floats.read_rows(2, 4, std::span(values)), Error);
  EXPECT_THROW(floats.read_rows(0, 3, std::span(values)), Error);
}

TEST(Hdf5File, RefusesLinksAndStorageElsewhere) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  {
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, testing::latest_hdf5());
    H5Lcreate_external("other.h5", "/x", file, "external", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/elsewhere", file, "soft", H5P_DEFAULT, H5P_DEFAULT);
    const hsize_t dims = 3;
    const hsize_t cube[3] = {1, 1, 1};
    const hid_t space = H5Screate_simple(1, &dims, nullptr);
    const hid_t cube_space = H5Screate_simple(3, cube, nullptr);
    const hid_t packed = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(packed, 1, &dims);
    H5Pset_shuffle(packed);
    const hid_t type = H5T_IEEE_F32LE;
    H5Dclose(H5Dcreate2(file, "packed", type, space, H5P_DEFAULT, packed, H5P_DEFAULT));
    H5Dclose(H5Dcreate2(file, "cube", type, cube_space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Dclose(H5Dcreate2(file, "unwritten", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Pclose(packed);
    for (const hid_t id : {space, cube_space}) H5Sclose(id);
    H5Fclose(file);
  }
  testing::seal_again(path);
  const auto file = Hdf5File::open(path);
  const auto message = [&](const std::string& name) {
    return message_of<Error>([&] { file.dataset<float>(name); });
  };
  EXPECT_THAT(message("external"),
              HasSubstr("external of " + path + " is a soft or external link"));
  EXPECT_THAT(message("soft"), HasSubstr("soft or external link"));
  EXPECT_THAT(message("packed"), HasSubstr("chunked, packed"));
  EXPECT_THAT(message("cube"), HasSubstr("3 dimensions"));
  EXPECT_THAT(message("unwritten"), HasSubstr("claims 3 x 1 values of 4 bytes"));
}

// Kinds of files that HDF5 reads and Hdf5File does not write.
TEST(Hdf5File, RefusesWhatItDoesNotWrite) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  const auto message = [&](hid_t access, const std::function<void(hid_t)>& fill) {
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access);
    fill(file);
    H5Fclose(file);
    testing::seal_again(path);
    return message_of<Error>([&] { Hdf5File::open(path); });
  };
  EXPECT_THAT(message(H5P_DEFAULT, [](hid_t) {}),
              ::testing::AllOf(HasSubstr(path), HasSubstr("superblock")));
  EXPECT_THAT(
      message(testing::latest_hdf5(),
              [&](hid_t file) {
                const hsize_t dims = 3;
                const hid_t space = H5Screate_simple(1, &dims, nullptr);
                const hid_t raw = H5Pcreate(H5P_DATASET_CREATE);
                H5Pset_external(raw, folder.write("raw", std::string(12, 'a')).c_str(), 0, 12);
                H5Dclose(
                    H5Dcreate2(file, "raw", H5T_IEEE_F32LE, space, H5P_DEFAULT, raw, H5P_DEFAULT));
                H5Pclose(raw);
                H5Sclose(space);
              }),
      HasSubstr("stored in other files"));
  const auto make_group = [](hid_t file, const std::string& name) {
    H5Gclose(H5Gcreate2(file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  };
  EXPECT_THAT(message(testing::latest_hdf5(),
                      [&](hid_t file) {
                        for (int i = 0; i < 20; ++i) make_group(file, std::to_string(i));
                      }),
              HasSubstr("in a heap"));
  EXPECT_THAT(message(testing::latest_hdf5(),
                      [&](hid_t file) {
                        make_group(file, "a");
                        H5Lcreate_hard(file, "/", file, "/a/up", H5P_DEFAULT, H5P_DEFAULT);
                      }),
              HasSubstr("/a/up has another name"));
  EXPECT_THAT(message(testing::latest_hdf5(),
                      [&](hid_t file) {
                        std::string name = "a";
                        for (int i = 0; i < 20; ++i, name += "/a") make_group(file, name);
                      }),
              HasSubstr("nested too deep"));
}

TEST(Hdf5File, FindsDamageAnywhere) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  {
    auto file = Hdf5File::create(path);
    file.write("/group/x", std::span<const double>(std::vector<double>(10'000, 1.0)), {10'000});
    file.write_attribute("/", "text", "some text");
    file.close();
  }
  const std::string bytes = testing::read_file(path);
  const auto read_all = [&] {
    const auto file = Hdf5File::open(path);
    file.read_text("/", "text");
    file.read<double>("/group/x");
    file.verify();
  };
  read_all();
  for (std::size_t at = 0; at < bytes.size(); at += at < 1000 ? 1 : 997) {
    std::string damaged = bytes;
    damaged[at] ^= 1;
    folder.write("a.h5", damaged);
    const std::string message = message_of<Error>(read_all);
    ASSERT_THAT(message, HasSubstr(path)) << at;
    // Nothing was made of it before.
    ASSERT_THAT(message, ::testing::Not(HasSubstr("HDF5"))) << at;
  }
}

// Sizes that a file claims and does not have.
TEST(Hdf5File, AllocatesNothingThatTheFileHasNoRoomFor) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.h5");
  const auto claim = [&](hsize_t rows, hsize_t columns) {
    const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, testing::latest_hdf5());
    const hsize_t dims[2] = {rows, columns};
    const hid_t space = H5Screate_simple(2, dims, nullptr);
    H5Dclose(H5Dcreate2(file, "x", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Sclose(space);
    H5Fclose(file);
    testing::seal_again(path);
    return message_of<Error>([&] { Hdf5File::open(path).read<std::int64_t>("x"); });
  };
  for (const auto& [rows, columns] : std::initializer_list<std::pair<hsize_t, hsize_t>>{
           {hsize_t{1} << 60, 1}, {hsize_t{1} << 32, hsize_t{1} << 28}, {1000, 1000}}) {
    EXPECT_THAT(claim(rows, columns), HasSubstr("more than the file has"));
  }
}

}  // namespace
}  // namespace serrate
