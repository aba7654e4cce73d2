#include "tests/support/simt/sectors.h"

#include <algorithm>
#include <array>
#include <unordered_map>
#include <vector>

#include "tests/support/simt/block.h"
#include "tests/support/simt/counters.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/source_line.h"
#include "tests/support/simt/stream.h"

namespace simt {
namespace {

struct Piece {
  std::uintptr_t address;
  std::uint32_t bytes, lane;
};

// The instructions of a warp at one place in the code; a function that was not inlined may be one
// for loads of global and of shared memory, which are counted apart.
struct Site {
  Space space;
  Touch touch;
  std::array<std::uint32_t, kWarpSize> done{};  // by each lane
  std::vector<std::vector<Piece>> instructions;
};

struct Counts {
  std::vector<const void*> kernels;  // in the order of first launch
  std::unordered_map<const void*, KernelCounters> of;
  KernelCounters* now = nullptr;
  std::array<std::vector<std::unordered_map<std::uint64_t, Site>>, kMostResident> warps;
};

Counts& counts() {
  static Counts instance;
  return instance;
}

// Calls f(number) for the units of so many bytes that a piece touches.
template <typename F>
void for_each_unit(const Piece& piece, std::uintptr_t unit, const F& f) {
  for (auto n = piece.address / unit; n <= (piece.address + piece.bytes - 1) / unit; ++n) f(n);
}

// Sorts them and takes out those that are there twice.
void make_unique(std::vector<std::uintptr_t>& numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
}

std::uint64_t sectors(const std::vector<Piece>& pieces) {
  static thread_local std::vector<std::uintptr_t> touched;
  touched.clear();
  for (const Piece& piece : pieces) {
    for_each_unit(piece, 32, [](std::uintptr_t sector) { touched.push_back(sector); });
  }
  make_unique(touched);
  return touched.size();
}

// 32 banks of 4 bytes. Accesses of 8 and 16 bytes take a half and a quarter of the warp a pass.
std::uint64_t bank_conflicts(const std::vector<Piece>& pieces) {
  static thread_local std::vector<std::uintptr_t> words;
  std::uint64_t conflicts = 0;
  const std::uint32_t bytes = pieces.front().bytes;
  const unsigned lanes = bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8;
  for (unsigned first = 0; first < kWarpSize; first += lanes) {
    words.clear();
    for (const Piece& piece : pieces) {
      if (piece.lane < first || piece.lane >= first + lanes) continue;
      for_each_unit(piece, 4, [](std::uintptr_t word) { words.push_back(word); });
    }
    make_unique(words);
    std::array<std::uint64_t, 32> in_bank{};
    for (const std::uintptr_t word : words) ++in_bank[word % 32];
    const std::uint64_t most = *std::max_element(in_bank.begin(), in_bank.end());
    conflicts += std::max<std::uint64_t>(most, 1) - 1;
  }
  return conflicts;
}

void flush(std::unordered_map<std::uint64_t, Site>& sites, KernelCounters& to) {
  for (const auto& [code, site] : sites) {
    for (const auto& pieces : site.instructions) {
      if (site.space == Space::kShared) {
        to.shared_bank_conflicts += bank_conflicts(pieces);
      } else if (site.space == Space::kCluster) {
        to.cluster_sectors += sectors(pieces);
      } else if (site.touch == Touch::kRead) {
        to.global_read_sectors += sectors(pieces);
      } else {
        to.global_written_sectors += sectors(pieces);
      }
    }
  }
  sites.clear();
}

}  // namespace

void count_launch(const Block& block) {
  Counts& c = counts();
  const auto [found, is_new] = c.of.try_emplace(block.launch->kernel);
  if (is_new) c.kernels.push_back(block.launch->kernel);
  c.now = &found->second;
  ++c.now->launches;
}

Uncounted::Uncounted() {
  counting.is_paused = true;
}
Uncounted::~Uncounted() {
  counting.is_paused = false;
}

void count_access(const Block& block, Space space, Touch touch, std::uintptr_t code,
                  std::uintptr_t address, std::size_t bytes) {
  Counts& c = counts();
  if (touch == Touch::kAtomic) ++c.now->atomics;
  if (space == Space::kShared) {
    c.now->shared_bytes += bytes;
  } else if (space == Space::kCluster) {
    c.now->cluster_bytes += bytes;
  } else {
    if (touch != Touch::kWrite) c.now->global_read_bytes += bytes;
    if (touch != Touch::kRead) c.now->global_written_bytes += bytes;
  }
  const unsigned thread = block.current->number, lane = thread % kWarpSize;
  auto& warps = c.warps[block.window];
  warps.resize((block.size() + kWarpSize - 1) / kWarpSize);
  // A structure that is copied takes several instructions of up to 16 bytes.
  for (std::size_t piece = 0; piece * 16 < bytes; ++piece) {
    const auto kind = static_cast<std::uint64_t>(space) << 2 | static_cast<std::uint64_t>(touch);
    Site& site = warps[thread / kWarpSize][code << 12 | kind << 8 | (piece & 0xFF)];
    site.space = space;
    site.touch = touch;
    const std::uint32_t n = site.done[lane]++;
    if (n >= site.instructions.size()) {
      site.instructions.resize(n + 1);
      site.instructions[n].reserve(kWarpSize);
    }
    site.instructions[n].push_back(
        {address + piece * 16,
         static_cast<std::uint32_t>(std::min<std::size_t>(bytes - piece * 16, 16)), lane});
  }
}

void count_bulk_access(Space space, Touch touch, std::uintptr_t address, std::size_t bytes) {
  KernelCounters& c = *counts().now;
  if (space == Space::kShared) {
    c.shared_bytes += bytes;
    return;
  }
  const std::uint64_t touched = (address + bytes - 1) / 32 - address / 32 + 1;
  if (space == Space::kCluster) {
    c.cluster_bytes += bytes;
    c.cluster_sectors += touched;
    return;
  }
  if (touch == Touch::kRead) {
    c.global_read_bytes += bytes;
    c.global_read_sectors += touched;
  } else {
    c.global_written_bytes += bytes;
    c.global_written_sectors += touched;
  }
}

void count_tensor_core_operation(const Block&) {
  ++counts().now->tensor_core_operations;
}

void count_block(const Block& block) {
  Counts& c = counts();
  ++c.now->blocks;
  c.now->threads += block.size();
  for (auto& sites : c.warps[block.window]) flush(sites, *c.now);
}

std::vector<KernelCounters> kernel_counters() {
  const Lock lock;  // kernels of other threads count meanwhile
  std::vector<KernelCounters> result;
  for (const void* kernel : counts().kernels) {
    result.push_back(counts().of.at(kernel));
    result.back().kernel = function_name(kernel);
  }
  return result;
}

KernelCounters kernel_counters(const std::string& name) {
  for (KernelCounters& c : kernel_counters()) {
    if (c.kernel == name) return c;
  }
  return {};
}

void reset_counters() {
  const Lock lock;
  counting.is_on = true;
  counts().kernels.clear();
  counts().of.clear();
}

}  // namespace simt
