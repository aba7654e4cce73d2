#include "tests/support/simt/warpgroup.h"

#include <algorithm>
#include <string>

#include "tests/support/simt/block.h"

namespace simt {
namespace {

constexpr unsigned kRegistersOfBlock = 65536, kMostOfThread = 256, kWarps = 4;

// What the compiler gives each thread of a kernel with __launch_bounds__(threads, 1).
unsigned registers_at_launch(const Block& block) {
  return std::min(kRegistersOfBlock / block.size() / 8 * 8, kMostOfThread);
}

WarpRegisters& registers_of(Block& block, unsigned warp) {
  while (block.registers.size() <= warp) {
    block.registers.push_back({.now = registers_at_launch(block)});
  }
  return block.registers[warp];
}

struct Lane {
  RegisterChange change;
  unsigned registers, warp;
  Where where;
};

void change_for_warp(void* const data[kWarpSize]) {
  Block& block = *running_block;
  const Lane& lane = *static_cast<const Lane*>(data[0]);
  registers_of(block, block.size() / kWarpSize);  // all of them, so that none moves
  const unsigned first = lane.warp / kWarps * kWarps;
  if ((first + kWarps) * kWarpSize > block.size()) {
    fail_here(Kind::kWarpDivergence,
              "changes registers in a warpgroup that has fewer than four warps", lane.where);
  }
  WarpRegisters& mine = block.registers[lane.warp];
  mine.changes.push_back(lane.registers);
  for (unsigned w = first; w < first + kWarps; ++w) {
    const WarpRegisters& other = block.registers[w];
    const std::size_t n = mine.changes.size();
    if (other.changes.size() >= n && other.changes[n - 1] != lane.registers) {
      fail_here(Kind::kWarpDivergence,
                "changes its registers to " + std::to_string(lane.registers) + ", but warp " +
                    std::to_string(w) + " of its warpgroup to " +
                    std::to_string(other.changes[n - 1]),
                lane.where);
    }
  }
  const bool lowers = lane.change == RegisterChange::kLower;
  if (lowers ? mine.now < lane.registers : mine.now > lane.registers) {
    fail_here(Kind::kBadInstruction,
              std::string(lowers ? "lowers" : "raises") + " its registers to " +
                  std::to_string(lane.registers) + ", and has " + std::to_string(mine.now),
              lane.where);
  }
  if (lowers) {
    block.free_registers += mine.now - lane.registers;
    mine.now = lane.registers;
  }
}

}  // namespace

void set_registers(RegisterChange change, unsigned registers, const Where& where) {
  const InSimulator scope;
  Block& block = *running_block;
  const unsigned warp = block.current->number / kWarpSize;
  Lane lane{change, registers, warp, where};
  warp_collective("setmaxnreg", &lane, change_for_warp, where);
  WarpRegisters& mine = block.registers[warp];
  // The first lane that finds enough takes them for its warp.
  const auto taken = [&] {
    if (mine.now >= registers) return true;
    if (block.free_registers < registers - mine.now) return false;
    block.free_registers -= registers - mine.now;
    mine.now = registers;
    return true;
  };
  wait_until(
      taken,
      [&] {
        return std::to_string(registers) + " registers: it has " + std::to_string(mine.now) +
               ", and " + std::to_string(block.free_registers) +
               " for each thread of a warp are free";
      },
      where);
}

}  // namespace simt
