#include "tests/support/simt/access_text.h"

#include <cstdint>

#include "tests/support/simt/block.h"
#include "tests/support/simt/source_line.h"

namespace simt {
namespace {

const char* verb(Touch touch) {
  return touch == Touch::kRead ? "reads" : touch == Touch::kWrite ? "writes" : "updates atomically";
}

// Who made an access of this grid: a thread, or an asynchronous operation.
std::string who(std::uint32_t global_number) {
  const Block& block = *running_block;
  const std::uint32_t stride = block.size() + kMostAsynchronous;
  const std::uint32_t number = global_number / stride, thread = global_number % stride;
  const Dim& g = block.launch->grid;
  std::string text;
  if (number != block.number) {
    text = "block (" + std::to_string(number % g.x) + ", " + std::to_string(number / g.x % g.y) +
           ", " + std::to_string(number / g.x / g.y) + "), ";
  }
  if (thread < block.size()) return text + thread_name(block.threads[thread]);
  if (number != block.number) return text + "an asynchronous operation";
  const AsynchronousThread& a = block.asynchronous[thread - block.size()];
  return text + a.name + " of " + thread_name(block.threads[a.issuer]);
}

}  // namespace

std::string sized(Touch touch, std::size_t bytes) {
  return std::string(verb(touch)) + " " + std::to_string(bytes) + " bytes at ";
}

std::string other_side(const Access& other) {
  const SourceLine line = source_line(program().base + other.code - 1);
  return "which " + who(other.thread) + " " +
         (other.atomic   ? "updated atomically"
          : other.writes ? "wrote"
                         : "read") +
         " at " + line.place.file + ":" + std::to_string(line.place.line);
}

}  // namespace simt
