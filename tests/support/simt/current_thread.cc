// What the thread that runs reports, publishes and asks.
#include <memory>

#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/source_line.h"

namespace simt {

Finding finding_about(Kind kind, const Thread& thread, const std::string& text, Place place) {
  const Block& block = *running_block;
  Finding finding;
  finding.kind = kind;
  finding.kernel = function_name(block.launch->kernel);
  finding.block = block.index;
  finding.thread = thread.index;
  const auto dim = [](const Dim& d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) +
           ")";
  };
  finding.text = "kernel " + finding.kernel + ", block " + dim(block.index) + ", thread " +
                 dim(thread.index) + " at " + place.file + ":" + std::to_string(place.line) + " " +
                 text;
  finding.place = std::move(place);
  return finding;
}

bool in_kernel() {
  return running_block && running_block->current && !running_block->current->in_simulator;
}

Place to_place(const Where& where) {
  const std::string file = where.file_name();
  const auto slash = file.rfind('/');
  return {slash == std::string::npos ? file : file.substr(slash + 1),
          static_cast<int>(where.line())};
}

std::string place_name(const Where& where) {
  const Place place = to_place(where);
  return place.file + ":" + std::to_string(place.line);
}

std::string thread_name(const Thread& thread) {
  const Dim& i = thread.index;
  return "thread (" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " +
         std::to_string(i.z) + ")";
}

void report_here(Kind kind, const std::string& text, const Where& where) {
  const InSimulator scope;
  report(finding_about(kind, *running_block->current, text, to_place(where)));
}

void report_at(Kind kind, const std::string& text, const Place& place) {
  report(finding_about(kind, *running_block->current, text, place));
}

void fail_here(Kind kind, const std::string& text, const Where& where) {
  report_here(kind, text, where);
  give_up_here();
}

void* publish_here(void* clock) {
  const InSimulator scope;
  Block& block = *running_block;
  if (!clock) clock = block.grid->clocks.emplace_back(std::make_unique<ThreadClock>()).get();
  block.order.publish(block.current->number, *static_cast<ThreadClock*>(clock));
  return clock;
}

void acquire_here(const void* clock) {
  const InSimulator scope;
  Block& block = *running_block;
  if (clock) block.order.acquire(block.current->number, *static_cast<const ThreadClock*>(clock));
}

void fence() {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  block.order.acquire(thread.number, thread.observed);
  thread.observed = {};
  thread.released = std::make_shared<ThreadClock>();
  block.order.publish(thread.number, *thread.released);
}

void atomic_order(std::uintptr_t address) {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  const auto found = block.grid->atomics.find(address);
  if (found != block.grid->atomics.end()) thread.observed.join(found->second);
  if (thread.released) block.grid->atomics[address].join(*thread.released);
}

std::uintptr_t dynamic_shared_memory() {
  return Memory::instance().shared(running_block->window);
}

std::uint32_t shared_memory_address(const void* shared) {
  return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(shared) -
                                    dynamic_shared_memory());
}

std::uint64_t shared_memory_bytes() {
  return running_block->launch->shared_bytes;
}

unsigned lane() {
  return running_block->current->number % kWarpSize;
}

std::uint32_t active_lanes() {
  return 1u << lane();
}

}  // namespace simt
