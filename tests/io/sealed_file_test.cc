#include "src/io/sealed_file.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "serrate/error.h"
#include "tests/support/seal.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;
using testing::write_sealed;

constexpr std::int64_t kBlock = SealedFile::kBlockBytes;
constexpr std::int64_t kFooterBytes = 32;

std::string random_text(std::int64_t size) {
  std::mt19937_64 random(static_cast<std::uint64_t>(size));
  std::string text(static_cast<std::size_t>(size), '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

std::string read_text(const SealedFile& file, std::int64_t offset, std::int64_t size) {
  std::string text(static_cast<std::size_t>(size), '?');
  file.read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

void write_text(SealedFile& file, std::int64_t offset, std::string_view text) {
  file.write(offset, std::as_bytes(std::span(text)));
}

ErrorKind kind_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.kind();
  }
  ADD_FAILURE() << "no exception";
  return ErrorKind::kRetryable;
}

TEST(SealedFile, KeepsContentOfAnySize) {
  const TemporaryFolder folder;
  for (const std::int64_t size :
       {std::int64_t{0}, std::int64_t{1}, kBlock - 1, kBlock, kBlock + 1, 40 * kBlock + 77}) {
    const std::string path = folder.file(std::to_string(size));
    const std::string content = random_text(size);
    write_sealed(path, content);
    const auto file = SealedFile::open(path);
    EXPECT_EQ(file->size(), size);
    EXPECT_EQ(file->file_bytes(), static_cast<std::int64_t>(std::filesystem::file_size(path)));
    EXPECT_EQ(file->file_bytes(), size + (size + kBlock - 1) / kBlock * 8 + kFooterBytes);
    EXPECT_TRUE(read_text(*file, 0, size) == content);
    // The content lies at the beginning, for other programs.
    EXPECT_TRUE(testing::read_file(path).starts_with(content));
    file->verify();
  }
}

TEST(SealedFile, ReadsAnyPart) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  const std::string content = random_text(50 * kBlock + 123);
  const auto size = static_cast<std::int64_t>(content.size());
  write_sealed(path, content);
  const auto file = SealedFile::open(path);
  std::mt19937_64 random(3);
  for (int i = 0; i < 3000; ++i) {
    // Ends near those of blocks, at them and anywhere; runs from nothing to more than read at once.
    const auto pick = [&] {
      const auto at = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(size + 1));
      const auto step = static_cast<std::int64_t>(random() % 5) - 2;
      return random() % 2 ? at : std::clamp<std::int64_t>(at / kBlock * kBlock + step, 0, size);
    };
    const auto [begin, end] = std::minmax({pick(), pick()});
    ASSERT_TRUE(
        read_text(*file, begin, end - begin) ==
        content.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)))
        << begin << " to " << end;
  }
  EXPECT_THAT(message_of<Error>([&] { read_text(*file, size, 1); }),
              HasSubstr(fmt::format("{} has {} bytes of content", path, size)));
  EXPECT_THROW(read_text(*file, -1, 1), Error);
  EXPECT_THROW(read_text(*file, INT64_MAX - 1, 5), Error);
}

TEST(SealedFile, WritesInAnyOrderAndOverAgain) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  std::string content;
  {
    const auto file = SealedFile::create(path);
    std::mt19937_64 random(5);
    for (int i = 0; i < 2000; ++i) {  // more blocks than are kept in memory
      const auto at = random() % static_cast<std::uint64_t>(300 * kBlock);
      const std::string text =
          random_text(static_cast<std::int64_t>(random() % (i % 20 ? 300 : 4 * kBlock)));
      write_text(*file, static_cast<std::int64_t>(at), text);
      if (content.size() < at + text.size()) content.resize(at + text.size());
      content.replace(at, text.size(), text);
      if (i % 100) continue;
      const auto from = static_cast<std::int64_t>(at / 2);
      ASSERT_TRUE(read_text(*file, from, 3 * kBlock) ==
                  (content + std::string(3 * kBlock, '\0'))
                      .substr(static_cast<std::size_t>(from), 3 * kBlock));
    }
    file->seal();
  }
  const auto file = SealedFile::open(path);
  ASSERT_EQ(file->size(), static_cast<std::int64_t>(content.size()));
  EXPECT_TRUE(read_text(*file, 0, file->size()) == content);
}

TEST(SealedFile, HolesAreZerosAndCutsForget) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  {
    const auto file = SealedFile::create(path);
    write_text(*file, 0, std::string(2 * kBlock, 'x'));
    file->resize(kBlock / 2);
    file->resize(kBlock);
    write_text(*file, 5 * kBlock + 7, "end");
    file->resize(8 * kBlock + 1);
    file->seal();
    EXPECT_EQ(file->size(), 8 * kBlock + 1);
  }
  std::string expected(8 * kBlock + 1, '\0');
  expected.replace(0, kBlock / 2, std::string(kBlock / 2, 'x'));
  expected.replace(5 * kBlock + 7, 3, "end");
  const auto file = SealedFile::open(path);
  EXPECT_TRUE(read_text(*file, 0, file->size()) == expected);
  EXPECT_EQ(file->digest(), [&] {
    write_sealed(folder.file("b"), expected);
    return SealedFile::open(folder.file("b"))->digest();
  }());
}

TEST(SealedFile, TheDigestNamesTheContent) {
  const TemporaryFolder folder;
  const std::string content = random_text(3 * kBlock);
  const auto digest_of = [&](const std::string& text) {
    write_sealed(folder.file("a"), text);
    return verify_sealed_file(folder.file("a"));
  };
  const std::string digest = digest_of(content);
  EXPECT_EQ(digest.size(), 32u);
  EXPECT_EQ(digest.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(digest_of(content), digest);
  for (const std::size_t at : {std::size_t{0}, content.size() / 2, content.size() - 1}) {
    std::string other = content;
    other[at] ^= 1;
    EXPECT_NE(digest_of(other), digest);
  }
  EXPECT_NE(digest_of(content.substr(1)), digest);
  EXPECT_NE(digest_of(content + '\0'), digest);
  // In small pieces: the same.
  const auto file = SealedFile::create(folder.file("b"));
  for (std::size_t at = 0; at < content.size(); at += 100) {
    write_text(*file, static_cast<std::int64_t>(at), content.substr(at, 100));
  }
  file->seal();
  EXPECT_EQ(file->digest(), digest);
  // XXH3 of an empty content under seed 0, as published with the library.
  EXPECT_EQ(digest_of(""), "99aa06d3014798d86001c324468d497f");
}

TEST(SealedFile, FindsEveryFlippedByte) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_sealed(path, random_text(3 * kBlock + 10));
  const std::string bytes = testing::read_file(path);
  const auto content_end = static_cast<std::size_t>(3 * kBlock + 10);
  std::vector<std::size_t> places;
  for (std::size_t at = 0; at < content_end; at += 1021) places.push_back(at);
  for (std::size_t at = content_end - 12; at < bytes.size(); ++at) places.push_back(at);
  for (const std::size_t at : places) {
    for (const int mask : {1, 0x80, 0xFF}) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ mask);
      folder.write("a", damaged);
      const std::string message = message_of<Error>([&] { verify_sealed_file(path); });
      ASSERT_THAT(message, HasSubstr(path)) << at;
      if (at < content_end) {
        const auto block = static_cast<std::int64_t>(at) / kBlock;
        ASSERT_THAT(message, HasSubstr(fmt::format(
                                 "is damaged (bytes {} to {} ", block * kBlock,
                                 std::min<std::int64_t>((block + 1) * kBlock, content_end))));
      }
      ASSERT_EQ(kind_of([&] { verify_sealed_file(path); }), ErrorKind::kUsage);
    }
  }
}

TEST(SealedFile, RefusesOtherLengths) {
  const TemporaryFolder folder;
  write_sealed(folder.file("a"), random_text(2 * kBlock + 10));
  const std::string bytes = testing::read_file(folder.file("a"));
  for (std::size_t length = 0; length < bytes.size();
       length += length + 60 < bytes.size() ? 97 : 1) {
    const std::string path = folder.write("cut", bytes.substr(0, length));
    ASSERT_THAT(message_of<Error>([&] { SealedFile::open(path); }), HasSubstr(path)) << length;
  }
  for (const std::size_t more : {1, 7, 8, 32, 40}) {
    const std::string path = folder.write("longer", bytes + std::string(more, '\0'));
    ASSERT_THAT(message_of<Error>([&] { SealedFile::open(path); }), HasSubstr("has no seal"));
  }
  // A seal behind another content, longer or shorter.
  const std::string seal = bytes.substr(2 * kBlock + 10);
  for (const std::size_t length : {std::size_t{0}, std::size_t{kBlock}, std::size_t{3 * kBlock}}) {
    const std::string path = folder.write("moved", random_text(length) + seal);
    ASSERT_THAT(message_of<Error>([&] { SealedFile::open(path); }), HasSubstr("do not fit"));
  }
}

TEST(SealedFile, SaysWhyThereIsNoSeal) {
  const TemporaryFolder folder;
  const std::string text = folder.write("text", "user,item\n1,2\n" + std::string(100, 'x'));
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(text); }),
              HasSubstr("it is neither a dataset nor a checkpoint"));
  std::string hdf5("\x89HDF\r\n\x1a\n\x03\x08\x08\x00", 12);
  hdf5.resize(200);
  hdf5[28] = static_cast<char>(200);  // where it says it ends
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(folder.write("old", hdf5)); }),
              HasSubstr("an earlier version or another program wrote it"));
  EXPECT_THAT(
      message_of<Error>([&] { SealedFile::open(folder.write("cut", hdf5.substr(0, 190))); }),
      HasSubstr("its 190 bytes are cut off"));
  // A later format.
  write_sealed(folder.file("a"), "content");
  std::string bytes = testing::read_file(folder.file("a"));
  bytes[bytes.size() - 24] = 2;
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(folder.write("later", bytes)); }),
              HasSubstr("is sealed in format 2"));
}

TEST(SealedFile, NoticesChangesWhileOpen) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  write_sealed(path, random_text(40 * kBlock));
  const auto file = SealedFile::open(path);
  read_text(*file, 0, 10);
  {
    std::fstream damage(path, std::ios::in | std::ios::out | std::ios::binary);
    damage.seekp(30 * kBlock + 5);
    damage << "other";
  }
  read_text(*file, 29 * kBlock, kBlock);
  EXPECT_THAT(message_of<Error>([&] { read_text(*file, 29 * kBlock, 5 * kBlock); }),
              HasSubstr(fmt::format("bytes {} to {} are not", 30 * kBlock, 31 * kBlock)));
  EXPECT_THAT(message_of<Error>([&] { read_text(*file, 30 * kBlock + 7000, 3); }),
              HasSubstr("is damaged"));
  std::filesystem::resize_file(path, 20 * kBlock + 100);
  read_text(*file, 19 * kBlock, kBlock);
  EXPECT_THAT(
      message_of<Error>([&] { read_text(*file, 18 * kBlock, 4 * kBlock); }),
      HasSubstr(fmt::format("{} was cut off while it was in use (bytes {} to {} are missing)", path,
                            20 * kBlock + 100, 22 * kBlock)));
  EXPECT_THAT(message_of<Error>([&] { read_text(*file, 20 * kBlock, 1); }),
              HasSubstr("was cut off"));
  EXPECT_THAT(message_of<Error>([&] { file->verify(); }), HasSubstr("was cut off"));
}

TEST(SealedFile, ThreadsReadAtOnce) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a");
  const std::string content = random_text(300 * kBlock);
  write_sealed(path, content);
  const auto file = SealedFile::open(path);
  std::array<int, 4> wrong = {};
  {
    std::vector<std::jthread> threads;
    for (int& count : wrong) {
      threads.emplace_back([&] {
        std::mt19937_64 random(static_cast<std::uint64_t>(&count - wrong.data()));
        for (int i = 0; i < 2000; ++i) {
          const std::size_t at = random() % (content.size() - 2 * kBlock);
          const std::size_t size = random() % (2 * kBlock);
          count += read_text(*file, static_cast<std::int64_t>(at),
                             static_cast<std::int64_t>(size)) != content.substr(at, size);
        }
      });
    }
  }
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST(SealedFile, TellsWhoseFaultItIs) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(folder.file("none")); }),
              HasSubstr("cannot open " + folder.file("none") + " (No such file or directory)"));
  EXPECT_EQ(kind_of([&] { SealedFile::open(folder.file("none")); }), ErrorKind::kUsage);
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(folder.file("")); }), HasSubstr("a folder"));
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(message_of<Error>([&] { SealedFile::open(pipe); }), HasSubstr("a device or a pipe"));
  EXPECT_EQ(kind_of([&] { SealedFile::create(folder.file("no/a")); }), ErrorKind::kUsage);
  EXPECT_EQ(kind_of([&] { SealedFile::create(folder.file("")); }), ErrorKind::kUsage);
}

TEST(SealedFile, AFileThatCouldNotBeWrittenIsLost) {
  // The kernel's own full disk. It takes pwrite and answers ENOSPC.
  const auto full = SealedFile::create("/dev/full");
  const std::string much(2 * kBlock, 'x');
  EXPECT_THAT(message_of<Error>([&] { write_text(*full, 0, much); }),
              AllOf(HasSubstr("cannot write bytes 0 to"), HasSubstr("/dev/full"),
                    HasSubstr("No space left on device")));
  EXPECT_THAT(message_of<Error>([&] { write_text(*full, 0, "x"); }),
              HasSubstr("an earlier write of it failed"));
  EXPECT_THAT(message_of<Error>([&] { full->seal(); }), HasSubstr("an earlier write of it failed"));
  EXPECT_THROW(static_cast<void>(full->digest()), Error);
}

TEST(SealedFile, StopsWhereTheFileMayNotGrow) {
  const TemporaryFolder folder;
  const auto signal = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before = {};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small = {10 * kBlock + 100, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &small);
  const auto write_all = [&](std::int64_t size, std::int64_t piece) {
    const auto file = SealedFile::create(folder.file("a"));
    const std::string text(static_cast<std::size_t>(piece), 'x');
    for (std::int64_t at = 0; at < size; at += piece) write_text(*file, at, text);
    file->seal();
  };
  // Whole blocks; parts of blocks, written by seal(); the seal itself.
  const std::string in_write = message_of<Error>([&] { write_all(12 * kBlock, kBlock); });
  const std::string in_parts = message_of<Error>([&] { write_all(12 * kBlock, 64); });
  const std::string in_seal = message_of<Error>([&] { write_all(10 * kBlock, kBlock); });
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, signal);
  for (const std::string& message : {in_write, in_parts, in_seal}) {
    EXPECT_THAT(message, AllOf(HasSubstr(folder.file("a")), HasSubstr("File too large")));
  }
  EXPECT_THAT(in_write, HasSubstr(fmt::format("bytes {} to {}", 10 * kBlock + 100, 11 * kBlock)));
}

}  // namespace
}  // namespace serrate
