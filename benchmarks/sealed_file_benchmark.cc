// Sealed files beside plain ones: what checksums cost. Rounds of both in turn; a line a case, the
// median of each and of the ratios of the rounds. Writes and "cold" reads, of a file that was put
// out of the page cache, are wall-clock time, the rest is processor time, which other processes
// disturb less.
//
//   sealed_file_benchmark [folder [MiB [rounds]]]     /tmp, 1024 and 5 unless given

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "benchmarks/processor_time.h"
#include "src/io/sealed_file.h"

namespace serrate {
namespace {

constexpr std::size_t kPiece = 1 << 20;  // bytes of one call
constexpr int kWindows = 20'000;

struct Setting {
  std::string folder = "/tmp";
  std::size_t pieces = 1024;
  int rounds = 5;

  std::string plain() const { return folder + "/sealed_file_benchmark.plain"; }
  std::string sealed() const { return folder + "/sealed_file_benchmark.sealed"; }
  double bytes() const { return static_cast<double>(pieces * kPiece); }
};

void require(bool holds, const char* action) {
  if (holds) return;
  std::perror(action);
  std::exit(1);
}

double wall_seconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double core_seconds(const std::function<void()>& work) {
  const double start = processor_seconds();
  work();
  return processor_seconds() - start;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::vector<std::byte> random_bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::mt19937_64 random(1);
  for (std::size_t i = 0; i + 8 <= size; i += 8) {
    const std::uint64_t word = random();
    std::memcpy(&bytes[i], &word, sizeof(word));
  }
  return bytes;
}

void write_plain(const Setting& s, const std::vector<std::byte>& piece) {
  const FileDescriptor file(::open(s.plain().c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644));
  for (std::size_t i = 0; i < s.pieces; ++i) {
    require(::write(file.number(), piece.data(), kPiece) == static_cast<ssize_t>(kPiece), "write");
  }
  require(::fsync(file.number()) == 0, "fsync");
}

void write_sealed(const Setting& s, const std::vector<std::byte>& piece) {
  const auto file = SealedFile::create(s.sealed());
  for (std::size_t i = 0; i < s.pieces; ++i) {
    file->write(static_cast<std::int64_t>(i * kPiece), piece);
  }
  file->seal();
}

void read_plain(const Setting& s, std::vector<std::byte>& piece) {
  const FileDescriptor file(::open(s.plain().c_str(), O_RDONLY));
  for (std::size_t i = 0; i < s.pieces; ++i) {
    require(::read(file.number(), piece.data(), kPiece) == static_cast<ssize_t>(kPiece), "read");
  }
}

void read_sealed(const Setting& s, std::vector<std::byte>& piece) {
  const auto file = SealedFile::open(s.sealed());
  for (std::size_t i = 0; i < s.pieces; ++i) {
    file->read(static_cast<std::int64_t>(i * kPiece), piece);
  }
}

void evict(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY));
  require(::posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED) == 0, "posix_fadvise");
}

using Case = std::function<double()>;  // seconds

/// `amount` over the seconds of both, in `unit`; the share is of rates.
void compare(const Setting& s, std::string_view name, const Case& plain, const Case& sealed,
             const std::function<std::string(double seconds)>& print) {
  std::vector<double> plain_seconds, sealed_seconds, shares;
  for (int round = 0; round < s.rounds; ++round) {
    plain_seconds.push_back(plain());
    sealed_seconds.push_back(sealed());
    shares.push_back(plain_seconds.back() / sealed_seconds.back());
  }
  fmt::print("{:<24} plain {:<14} sealed {:<14} {:.0f} %\n", name, print(median(plain_seconds)),
             print(median(sealed_seconds)), 100 * median(shares));
}

void run(const Setting& s) {
  const auto rate = [&](double seconds) {
    return fmt::format("{:.2f} GB/s", s.bytes() / seconds / 1e9);
  };
  std::vector<std::byte> piece = random_bytes(kPiece);
  const auto on_disk = [&](auto* work) {
    return [&, work] { return wall_seconds([&] { work(s, piece); }); };
  };
  const auto in_memory = [&](auto* work) {
    return [&, work] { return core_seconds([&] { work(s, piece); }); };
  };
  const auto cold = [&](const std::string& path, auto* work) {
    return [&, path, work] {
      evict(path);
      return wall_seconds([&] { work(s, piece); });
    };
  };

  const double hashing = core_seconds([&] {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < s.pieces; ++i) {
      for (std::size_t at = 0; at < kPiece; at += SealedFile::kBlockBytes) {
        sum += XXH3_64bits(&piece[at], SealedFile::kBlockBytes);
      }
    }
    piece[0] = static_cast<std::byte>(sum);
  });
  fmt::print("{:<24} {}\n", "XXH3 of 8 KiB in cache", rate(hashing));

  compare(s, "write and fsync", on_disk(write_plain), on_disk(write_sealed), rate);
  compare(s, "read, page cache", in_memory(read_plain), in_memory(read_sealed), rate);
  const auto verify = [&] { return core_seconds([&] { verify_sealed_file(s.sealed()); }); };
  compare(s, "verify, page cache", in_memory(read_plain), verify, rate);
  compare(s, "read, cold", cold(s.plain(), read_plain), cold(s.sealed(), read_sealed), rate);

  const FileDescriptor plain(::open(s.plain().c_str(), O_RDONLY));
  const auto sealed = SealedFile::open(s.sealed());
  for (const std::size_t events : {20, 200, 2000}) {
    std::vector<std::byte> window(events * sizeof(std::int64_t));
    const auto windows = [&](const auto& read) {
      return [&, read] {
        std::mt19937_64 random(2);
        return core_seconds([&] {
          for (int i = 0; i < kWindows; ++i) {
            read(static_cast<std::int64_t>(random() % (s.pieces * kPiece - window.size())));
          }
        });
      };
    };
    compare(s, fmt::format("windows of {} events", events), windows([&](std::int64_t offset) {
              require(::pread(plain.number(), window.data(), window.size(), offset) > 0, "pread");
            }),
            windows([&](std::int64_t offset) { sealed->read(offset, window); }),
            [](double seconds) { return fmt::format("{:.2f} us", seconds / kWindows * 1e6); });
  }
  std::filesystem::remove(s.plain());
  std::filesystem::remove(s.sealed());
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  serrate::Setting setting;
  if (argc > 1) setting.folder = argv[1];
  if (argc > 2) setting.pieces = std::stoul(argv[2]);
  if (argc > 3) setting.rounds = std::stoi(argv[3]);
  serrate::run(setting);
}
