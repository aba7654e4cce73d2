#include "tests/support/simt/instructions.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/number.h"
#include "tests/support/simt/observe.h"
#include "tests/support/simt/sectors.h"

namespace simt {
namespace {

constexpr std::size_t kRowBytes = 16;

void require(bool holds, const std::string& text, const Where& where) {
  if (!holds) fail_here(Kind::kBadInstruction, text, where);
}

// What a lane brings to ldmatrix, and what it takes away.
struct LoadLane {
  Fragments fragments;
  std::uint16_t row[8];
};

void distribute(void* const lanes[kWarpSize]) {
  const auto at = [&](unsigned lane) { return static_cast<LoadLane*>(lanes[lane]); };
  for (unsigned l = 0; l < kWarpSize; ++l) {
    const unsigned g = l / 4, q = l % 4;
    const Fragments& to = at(l)->fragments;
    for (unsigned j = 0; j < static_cast<unsigned>(to.matrices); ++j) {
      const auto element = [&](unsigned row, unsigned col) { return at(8 * j + row)->row[col]; };
      const std::uint32_t low = to.transposed ? element(2 * q, g) : element(g, 2 * q);
      const std::uint32_t high = to.transposed ? element(2 * q + 1, g) : element(g, 2 * q + 1);
      to.registers[j] = low | high << 16;
    }
  }
}

struct MmaLane {
  MmaType type;
  float* d;
  const std::uint32_t *a, *b;
};

float toward_zero(double value) {
  const auto nearest = static_cast<float>(value);
  return std::abs(nearest) > std::abs(value) && std::isfinite(nearest)
             ? std::nextafterf(nearest, 0.0f)
             : nearest;
}

void multiply(void* const lanes[kWarpSize]) {
  const auto at = [&](unsigned lane) { return static_cast<const MmaLane*>(lanes[lane]); };
  const MmaType type = at(0)->type;
  const unsigned in_register = elements_of(type), depth = 8 * in_register;
  double a[16][32] = {}, b[32][8] = {};
  for (unsigned l = 0; l < kWarpSize; ++l) {
    const unsigned g = l / 4, q = l % 4;
    for (unsigned i = 0; i < 4 * in_register; ++i) {
      const RowAndDepth where = element_of_a(type, l, i);
      a[where.row][where.depth] = element_of(type, at(l)->a, i);
    }
    for (unsigned i = 0; i < 2 * in_register; ++i) {
      const unsigned row = in_register * q + i % in_register + 4 * in_register * (i / in_register);
      b[row][g] = element_of(type, at(l)->b, i);
    }
  }
  for (unsigned row = 0; row < 16; ++row) {
    // Lane 4 (row % 8) + q has the sums of columns 2 q and 2 q + 1.
    const auto sum_of = [&](unsigned col) -> float& {
      return at(4 * (row % 8) + col / 2)->d[row / 8 * 2 + col % 2];
    };
    double sums[8];
    for (unsigned col = 0; col < 8; ++col) sums[col] = sum_of(col);
    for (unsigned k = 0; k < depth; ++k) {
      for (unsigned col = 0; col < 8; ++col) sums[col] += a[row][k] * b[k][col];
    }
    for (unsigned col = 0; col < 8; ++col) sum_of(col) = toward_zero(sums[col]);
  }
  count_tensor_core_operation(*running_block);
}

const char* name_of(MmaType type) {
  switch (type) {
    case MmaType::kBf16:
      return "mma.m16n8k16.bf16";
    case MmaType::kF16:
      return "mma.m16n8k16.f16";
    case MmaType::kTf32:
      return "mma.m16n8k8.tf32";
    case MmaType::kE4m3:
      return "mma.m16n8k32.e4m3";
  }
  return "?";
}

// The bytes arrive: whoever may still read what was there before races with that.
void arrive(const AsyncCopy& copy) {
  const Uncounted counted_at_the_issue;
  observe(copy.from, kRowBytes, Touch::kRead, true, copy.code);
  std::memcpy(reinterpret_cast<void*>(copy.to), reinterpret_cast<const void*>(copy.from),
              kRowBytes);
  observe(copy.to, kRowBytes, Touch::kWrite, true, copy.code);
}

}  // namespace

double element_of(MmaType type, const std::uint32_t* registers, unsigned i) {
  const unsigned in_register = elements_of(type);
  const std::uint32_t bits = registers[i / in_register] >> 32 / in_register * (i % in_register);
  switch (type) {
    case MmaType::kTf32:
      return std::bit_cast<float>(bits & ~0x1FFFu);
    case MmaType::kBf16:
      return from_bf16(static_cast<std::uint16_t>(bits));
    case MmaType::kF16:
      return from_f16(static_cast<std::uint16_t>(bits));
    case MmaType::kE4m3:
      return from_e4m3(static_cast<std::uint8_t>(bits));
  }
  return 0;
}

// Registers 0 and 2 are of rows g, 1 and 3 of rows g + 8; 2 and 3 of the second half of the depth.
RowAndDepth element_of_a(MmaType type, unsigned lane, unsigned i) {
  const unsigned in_register = elements_of(type), r = i / in_register;
  return {lane / 4 + 8 * (r % 2),
          in_register * (lane % 4) + i % in_register + 4 * in_register * (r / 2)};
}

void load_matrices(Fragments fragments, const void* row, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  LoadLane mine{fragments, {}};
  if (lane() < 8 * static_cast<unsigned>(fragments.matrices)) {
    require(is_own_shared(address), "loads a row by ldmatrix outside shared memory", where);
    require(address % kRowBytes == 0, "loads a row by ldmatrix that is not aligned to 16 bytes",
            where);
    observe(address, kRowBytes, Touch::kRead, true, code);
    std::memcpy(mine.row, row, kRowBytes);
  }
  warp_collective("ldmatrix", &mine, distribute, where);
}

void multiply_matrices(MmaType type, float* d, const std::uint32_t* a, const std::uint32_t* b,
                       const Where& where) {
  MmaLane mine{type, d, a, b};
  warp_collective(name_of(type), &mine, multiply, where);
}

void copy_async(void* shared, const void* global, const Where& where) {
  const auto code = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  const AsyncCopy copy{reinterpret_cast<std::uintptr_t>(shared),
                       reinterpret_cast<std::uintptr_t>(global), code};
  Memory& memory = Memory::instance();
  require(is_own_shared(copy.to) && memory.contains(copy.from) && !memory.is_shared(copy.from),
          "copies by cp.async otherwise than from global to shared memory", where);
  require(copy.to % kRowBytes == 0 && copy.from % kRowBytes == 0,
          "copies by cp.async what is not aligned to 16 bytes", where);
  const InSimulator scope;
  // From now on the target may change at any time, and until the end the source may be read.
  observe(copy.from, kRowBytes, Touch::kRead, true, code);
  observe(copy.to, kRowBytes, Touch::kWrite, true, code);
  std::memset(reinterpret_cast<void*>(copy.to), kPoison, kRowBytes);
  std::memset(memory.state(copy.to), kAllocated, kRowBytes);
  running_block->current->copies.push_back(copy);
}

void commit_copies() {
  const InSimulator scope;
  Thread& thread = *running_block->current;
  thread.copy_groups.push_back(std::exchange(thread.copies, {}));
}

void wait_for_copies(unsigned pending) {
  const InSimulator scope;
  Thread& thread = *running_block->current;
  while (thread.copy_groups.size() > pending) {
    for (const AsyncCopy& copy : thread.copy_groups.front()) arrive(copy);
    thread.copy_groups.erase(thread.copy_groups.begin());
  }
}

}  // namespace simt
