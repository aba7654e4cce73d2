#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <span>

#include "tests/support/simt/block.h"

namespace simt {
namespace {

std::string in_hex(std::uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

using Lanes = std::array<Thread*, kWarpSize>;

// The lanes of the warp; null where the block ends.
Lanes lanes_of(Block& block, const Thread& thread) {
  Lanes lanes{};
  const unsigned first = thread.number / kWarpSize * kWarpSize;
  for (unsigned l = 0; l < kWarpSize && first + l < block.size(); ++l) {
    lanes[l] = &block.threads[first + l];
  }
  return lanes;
}

bool at_same_operation(const Thread& a, const Thread& b) {
  return a.state == Thread::State::kWaiting && a.wait.what == Wait::For::kWarp &&
         a.wait.operation == b.wait.operation && a.wait.mask == b.wait.mask &&
         a.wait.where.line() == b.wait.where.line() && a.wait.name == b.wait.name;
}

std::uint64_t truncated(const WarpArgument& argument) {
  return argument.bytes >= 8 ? argument.value
                             : argument.value & ((std::uint64_t{1} << 8 * argument.bytes) - 1);
}

// The lane whose value a shuffle returns; the lane itself when there is none.
int shuffle_source(const Wait& wait, int mine) {
  const WarpArgument& a = wait.argument;
  const int first = mine / a.width * a.width, last = first + a.width - 1;
  switch (wait.operation) {
    case WarpOperation::kShuffle:
      return first + ((a.lane % a.width) + a.width) % a.width;
    case WarpOperation::kShuffleUp:
      return mine - a.lane < first ? mine : mine - a.lane;
    case WarpOperation::kShuffleDown:
      return mine + a.lane > last ? mine : mine + a.lane;
    default:  // a source in a later segment is not read
      return (mine ^ a.lane) > last ? mine : mine ^ a.lane;
  }
}

bool is_shuffle(WarpOperation operation) {
  return operation >= WarpOperation::kShuffle && operation <= WarpOperation::kShuffleXor;
}

std::uint64_t reduce(WarpOperation operation, std::span<Thread* const> there, bool is_signed) {
  std::uint32_t result = static_cast<std::uint32_t>(there.front()->wait.argument.value);
  for (auto it = there.begin() + 1; it != there.end(); ++it) {
    const auto value = static_cast<std::uint32_t>((*it)->wait.argument.value);
    const bool less = is_signed
                          ? static_cast<std::int32_t>(value) < static_cast<std::int32_t>(result)
                          : value < result;
    switch (operation) {
      case WarpOperation::kReduceAdd:
        result += value;
        break;
      case WarpOperation::kReduceMin:
        if (less) result = value;
        break;
      case WarpOperation::kReduceMax:
        if (!less) result = value;
        break;
      case WarpOperation::kReduceAnd:
        result &= value;
        break;
      case WarpOperation::kReduceOr:
        result |= value;
        break;
      default:
        result ^= value;
        break;
    }
  }
  return result;
}

// Some lane of the mask, always the same one for a mask.
unsigned elected_lane(std::uint32_t mask) {
  static const std::uint64_t salt = schedule()();
  unsigned skipped =
      static_cast<unsigned>((salt ^ mask) % static_cast<unsigned>(std::popcount(mask)));
  unsigned l = static_cast<unsigned>(std::countr_zero(mask));
  for (; skipped > 0; --skipped) {
    mask &= mask - 1;
    l = static_cast<unsigned>(std::countr_zero(mask));
  }
  return l;
}

std::uint64_t result_for(const Thread& thread, const Lanes& lanes, std::span<Thread* const> there) {
  const Wait& wait = thread.wait;
  const int mine = static_cast<int>(thread.number % kWarpSize);
  if (is_shuffle(wait.operation)) {
    return lanes[static_cast<std::size_t>(shuffle_source(wait, mine))]->wait.argument.value;
  }
  if (wait.operation == WarpOperation::kSync || wait.operation == WarpOperation::kCollective) {
    return 0;
  }
  std::uint32_t ballot = 0, equal = 0;
  for (const Thread* other : there) {
    const std::uint32_t bit = 1u << (other->number % kWarpSize);
    if (other->wait.argument.value) ballot |= bit;
    if (truncated(other->wait.argument) == truncated(wait.argument)) equal |= bit;
  }
  switch (wait.operation) {
    case WarpOperation::kAll:
      return ballot == wait.mask;
    case WarpOperation::kAny:
      return ballot != 0;
    case WarpOperation::kBallot:
      return ballot;
    case WarpOperation::kElect:
      return static_cast<unsigned>(mine) == elected_lane(wait.mask);
    case WarpOperation::kMatchAny:
      return equal;
    case WarpOperation::kMatchAll:
      return equal == wait.mask ? wait.mask : 0;
    default:
      return reduce(wait.operation, there, wait.argument.width < 0);
  }
}

}  // namespace

const char* to_string(WarpOperation operation) {
  static constexpr const char* kNames[] = {
      "__syncwarp",        "__shfl_sync",       "__shfl_up_sync",    "__shfl_down_sync",
      "__shfl_xor_sync",   "__all_sync",        "__any_sync",        "__ballot_sync",
      "__match_any_sync",  "__match_all_sync",  "__reduce_add_sync", "__reduce_min_sync",
      "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",  "__reduce_xor_sync",
      "elect.sync",        "a warp collective"};
  return kNames[static_cast<int>(operation)];
}

void try_warp_operation(Block& block, Thread& arrived) {
  const Lanes lanes = lanes_of(block, arrived);
  Lanes in_mask;
  std::size_t count = 0;
  for (unsigned l = 0; l < kWarpSize; ++l) {
    if (!(arrived.wait.mask >> l & 1)) continue;
    if (!lanes[l] || !at_same_operation(*lanes[l], arrived)) return;
    in_mask[count++] = lanes[l];
  }
  const std::span<Thread* const> there(in_mask.data(), count);
  if (arrived.wait.operation == WarpOperation::kCollective) {
    void* data[kWarpSize] = {};
    for (const Thread* thread : there) data[thread->number % kWarpSize] = thread->wait.mine;
    arrived.wait.all(data);
  }
  std::array<std::uint64_t, kWarpSize> results;
  for (std::size_t i = 0; i < count; ++i) results[i] = result_for(*there[i], lanes, there);
  if (arrived.wait.operation == WarpOperation::kSync) {
    std::vector<unsigned> numbers;
    for (const Thread* thread : there) numbers.push_back(thread->number);
    block.order.barrier(numbers);
  }
  for (std::size_t i = 0; i < count; ++i) {
    there[i]->wait.result = results[i];
    make_runnable(*there[i]);
  }
  block.at_warp_operation[arrived.number / kWarpSize] -= static_cast<unsigned>(count);
}

namespace {

// That no lane of the mask is missing.
void require_lanes(const Wait& wait, const char* name) {
  const Lanes lanes = lanes_of(*running_block, *running_block->current);
  for (unsigned l = 0; l < kWarpSize; ++l) {
    if (!(wait.mask >> l & 1)) continue;
    if (!lanes[l] || lanes[l]->state == Thread::State::kDone) {
      fail_here(Kind::kWarpDivergence,
                std::string("calls ") + name + " with mask " + in_hex(wait.mask) + ", but lane " +
                    std::to_string(l) + (lanes[l] ? " has exited" : " does not exist"),
                wait.where);
    }
  }
}

// Checks the mask, and waits until all of its lanes are there.
std::uint64_t meet(const Wait& wait) {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  const char* name =
      wait.operation == WarpOperation::kCollective ? wait.name : to_string(wait.operation);
  if (!(wait.mask >> lane() & 1)) {
    fail_here(Kind::kBadLane,
              std::string("calls ") + name + " with mask " + in_hex(wait.mask) + ", which lane " +
                  std::to_string(lane()) + " is not in",
              wait.where);
  }
  const bool all_there = block.alive == block.size() && block.size() % kWarpSize == 0;
  if (!all_there) require_lanes(wait, name);
  if (is_shuffle(wait.operation)) {
    const int width = wait.argument.width;
    if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
      fail_here(Kind::kBadInstruction,
                "shuffles in segments of " + std::to_string(width) + " lanes: no power of two",
                wait.where);
    }
    const int source = shuffle_source(wait, static_cast<int>(lane()));
    if (!(wait.mask >> source & 1)) {
      fail_here(Kind::kBadLane,
                std::string("reads lane ") + std::to_string(source) + " by " + name +
                    ", which is not in mask " + in_hex(wait.mask),
                wait.where);
    }
  }
  thread.wait = wait;
  thread.state = Thread::State::kWaiting;
  unsigned& waiting = block.at_warp_operation[thread.number / kWarpSize];
  if (++waiting >= static_cast<unsigned>(std::popcount(wait.mask))) {
    try_warp_operation(block, thread);
  }
  switch_away();  // also when all lanes are there: the last to come need not go on first
  return thread.wait.result;
}

}  // namespace

std::uint64_t warp_operation(WarpOperation operation, std::uint32_t mask, WarpArgument argument,
                             const Where& where) {
  return meet({.what = Wait::For::kWarp,
               .where = where,
               .mask = mask,
               .operation = operation,
               .argument = argument});
}

void warp_collective(const char* name, void* mine, void (*all)(void* const lanes[kWarpSize]),
                     const Where& where) {
  meet({.what = Wait::For::kWarp,
        .where = where,
        .mask = 0xFFFFFFFF,
        .operation = WarpOperation::kCollective,
        .name = name,
        .mine = mine,
        .all = all});
}

}  // namespace simt
