#include "tests/support/simt/asynchronous.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/support/simt/memory.h"

namespace simt {
namespace {

// A thread of BlockOrder for an operation: none that runs another one, and one whose past the
// issuer knows, so that an unordered pair of operations is never on one thread.
unsigned thread_for(Block& block, unsigned issuer, const char* name) {
  const auto is_free = [&](std::size_t i) { return !block.asynchronous[i].busy; };
  std::size_t chosen = block.asynchronous.size();
  for (std::size_t i = 0; i < block.asynchronous.size() && chosen == block.asynchronous.size();
       ++i) {
    const auto number = static_cast<unsigned>(block.size() + i);
    if (is_free(i) && block.order.knows_all(issuer, number)) chosen = i;
  }
  if (chosen == block.asynchronous.size()) {
    if (chosen < kMostAsynchronous) {
      block.asynchronous.emplace_back();
      block.order.add_asynchronous();
    } else {
      chosen = schedule()() % kMostAsynchronous;
      while (!is_free(chosen)) chosen = (chosen + 1) % kMostAsynchronous;
    }
  }
  block.asynchronous[chosen] = {name, issuer, true};
  return static_cast<unsigned>(block.size() + chosen);
}

}  // namespace

std::shared_ptr<Asynchronous> issue(const char* name, std::uintptr_t code, Effect effect,
                                    std::shared_ptr<Asynchronous> after,
                                    const std::vector<unsigned>& issuers) {
  const InSimulator scope;
  Block& block = *running_block;
  if (block.under_way.size() == kMostAsynchronous) finish_one(block);
  auto operation = std::make_shared<Asynchronous>();
  operation->name = name;
  operation->issuer = block.current->number;
  operation->number = thread_for(block, operation->issuer, name);
  operation->code = code;
  if (issuers.empty()) {
    block.order.publish(operation->issuer, operation->known);
  } else {
    block.order.publish(issuers, operation->known);
  }
  operation->after = std::move(after);
  operation->effect = std::move(effect);
  block.under_way.push_back(operation);
  if (schedule()() % 4 == 0) finish(block, operation);
  return operation;
}

void finish(Block& block, const std::shared_ptr<Asynchronous>& operation) {
  if (operation->done) return;
  if (operation->after) {
    finish(block, operation->after);
    operation->known.join(operation->after->clock);
    operation->after = nullptr;
  }
  Thread& issuer = block.threads[operation->issuer];
  Thread* const outer = std::exchange(block.current, &issuer);
  const bool was_in_simulator = std::exchange(issuer.in_simulator, true);
  operation->done = true;
  std::erase(block.under_way, operation);
  block.order.begin_asynchronous(operation->number, operation->known);
  operation->effect(*operation);
  block.order.publish(operation->number, operation->clock);
  operation->effect = nullptr;
  block.asynchronous[operation->number - block.size()].busy = false;
  issuer.in_simulator = was_in_simulator;
  block.current = outer;
}

bool finish_one(Block& block) {
  if (block.under_way.empty()) return false;
  const auto operation = block.under_way[schedule()() % block.under_way.size()];
  finish(block, operation);
  return true;
}

void wait_for(const std::vector<std::shared_ptr<Asynchronous>>& operations) {
  const InSimulator scope;
  Block& block = *running_block;
  const unsigned thread = block.current->number;
  for (const auto& operation : operations) {
    finish(block, operation);
    block.order.acquire(thread, operation->clock);
  }
}

void unsettle(std::uintptr_t target, unsigned bytes) {
  std::memset(reinterpret_cast<void*>(target), kPoison, bytes);
  std::memset(Memory::instance().state(target), kAllocated, bytes);
}

void fence_async_proxy(ProxyFence fence) {
  const InSimulator scope;
  Block& block = *running_block;
  const unsigned thread = block.current->number;
  const std::uint32_t number = block.global_number(thread), epoch = block.order.epoch(thread);
  block.grid->shared_fences[number].push_back(epoch);
  if (fence == ProxyFence::kAll) block.grid->global_fences[number].push_back(epoch);
  block.order.next_epoch(thread);
  for (auto& [address, mbarrier] : block.mbarriers) {
    if (mbarrier.initialized_by == thread) mbarrier.fenced = true;
  }
}

}  // namespace simt
