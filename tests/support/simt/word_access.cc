#include "tests/support/simt/word_access.h"

#include <algorithm>
#include <set>
#include <utility>

#include "tests/support/simt/access_text.h"
#include "tests/support/simt/cluster.h"
#include "tests/support/simt/memory.h"

namespace simt {

constinit thread_local Uses uses;

namespace {

thread_local std::set<std::pair<Kind, std::uintptr_t>> reported;  // of the operation that runs

// A write by way of the generic proxy reaches the asynchronous one by a fence of the writer, which
// is one of its own block's shared memory or of all.
bool is_fenced(const Access& earlier, unsigned reader, std::uintptr_t address, bool shared) {
  const Block& block = *running_block;
  const std::uint32_t stride = block.size() + kMostAsynchronous;
  const bool own = shared && owner_of(address).number == earlier.thread / stride;
  const auto& fences = own ? block.grid->shared_fences : block.grid->global_fences;
  const auto found = fences.find(earlier.thread);
  if (found == fences.end()) return false;
  const auto fence = std::lower_bound(found->second.begin(), found->second.end(), earlier.epoch);
  return fence != found->second.end() &&
         block.order.knows(reader, earlier.thread / stride, earlier.thread % stride, *fence + 1);
}

std::string text_of(const WordAccess& access, std::uintptr_t address) {
  return subject(access.actor) + sized(access.touch, access.size) +
         (Memory::instance().contains(address) ? describe(address) : "a __shared__ variable");
}

}  // namespace

void begin_other_operation(std::uint32_t operation) {
  uses = {.operation = operation};
  reported.clear();
}

bool first_time(Kind kind, std::uintptr_t code) {
  return reported.insert({kind, code}).second;
}

void say(Kind kind, const std::string& text, std::uintptr_t code) {
  if (!first_time(kind, code)) return;
  const SourceLine line = source_line(code - 1);
  report_at(kind, text + (line.chain.find(',') == std::string::npos ? "" : " (" + line.chain + ")"),
            line.place);
}

std::string describe(std::uintptr_t address) {
  return Memory::instance().describe(address) + owner_name(owner_of(address));
}

std::string subject(const Actor& actor) {
  return actor.operation ? std::string("issued ") + actor.operation->name + ", which " : "";
}

void check_fences(const WordAccess& access, const Word& word, std::uintptr_t address) {
  for (const Access& earlier : word.kept) {
    if (earlier.operation == access.now.operation && earlier.writes &&
        (earlier.bytes & access.now.bytes) &&
        earlier.thread % access.stride < access.block.size() && access.is_behind(earlier) &&
        !is_fenced(earlier, access.actor.number, address, access.shared)) {
      say(Kind::kProxy,
          text_of(access, address) + ", " + other_side(earlier) +
              ", and no fence.proxy.async is between",
          access.actor.code);
    }
  }
}

void report_race(const WordAccess& access, const Access& racing, std::uintptr_t address) {
  const Block& block = access.block;
  if (racing.operation != access.now.operation) {
    return say(Kind::kStreamRace,
               text_of(access, address) + ", which " + operation_name(racing.operation) +
                   (racing.writes ? " writes" : " reads") +
                   ": neither stream order nor an event is between",
               access.actor.code);
  }
  const bool other_block = racing.thread / access.stride != block.number;
  const bool asynchronous = access.actor.operation || racing.thread % access.stride >= block.size();
  say(access.shared ? Kind::kSharedRace : Kind::kGlobalRace,
      text_of(access, address) + ", " + other_side(racing) + ", and " +
          (other_block    ? "nothing orders blocks"
           : asynchronous ? "nothing waited in between"
                          : "no barrier is between"),
      access.actor.code);
}

}  // namespace simt
