// What the headers of include/cub need of the simulator.
#include <cstdlib>
#include <cub/block/collective.cuh>

#include "tests/support/simt/block.h"
#include "tests/support/simt/findings.h"
#include "tests/support/simt/stream.h"

namespace cub::simulated {

bool coin() {
  const std::lock_guard lock(simt::runtime_mutex());
  return simt::schedule()() % 2 == 0;
}

void complain(const char* call, const char* problem) {
  simt::Finding finding;
  finding.kind = simt::Kind::kBadCall;
  finding.text = std::string(call) + ": " + problem;
  simt::report(std::move(finding));
}

void check_block(const char* name, int x, int y, int z, const simt::Where& where) {
  const simt::InSimulator scope;
  const simt::Dim& block = simt_indices.block_dim;
  if (static_cast<int>(block.x) == x && static_cast<int>(block.y) == y &&
      static_cast<int>(block.z) == z) {
    return;
  }
  simt::fail_here(simt::Kind::kBadInstruction,
                  std::string("uses ") + name + " for " + std::to_string(x * y * z) +
                      " threads in a block of " + std::to_string(block.x * block.y * block.z),
                  where);
}

std::uint64_t seed() {
  const char* text = std::getenv("SERRATE_SIMT_SEED");
  return text ? std::strtoull(text, nullptr, 10) : 1;
}

}  // namespace cub::simulated
