#include "tests/support/simt/cluster.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/support/simt/block.h"
#include "tests/support/simt/memory.h"
#include "tests/support/simt/source_line.h"

namespace simt {
namespace {

// When all threads that live have arrived, those that wait go on.
void open_if_complete(Cluster& cluster) {
  if (cluster.arrivals == 0 || cluster.arrivals < cluster.alive) return;
  ++cluster.phase;
  cluster.arrivals = 0;
  cluster.completed = std::exchange(cluster.arrived, {});
  for (Block* block : cluster.blocks) {
    for (Thread& thread : block->threads) {
      if (thread.state == Thread::State::kWaiting && thread.wait.what == Wait::For::kCluster) {
        thread.state = Thread::State::kRunnable;
        block->runnable.push_back(thread.number);
      }
    }
  }
}

}  // namespace

unsigned cluster_rank() {
  return running_block->number % cluster_size();
}

unsigned cluster_size() {
  return static_cast<unsigned>(running_block->cluster->blocks.size());
}

void arrive_at_cluster(const Where& where) {
  const InSimulator scope;
  Block& block = *running_block;
  Cluster& cluster = *block.cluster;
  Thread& thread = *block.current;
  if (thread.at_cluster) {
    fail_here(Kind::kBarrierDivergence,
              "arrives at the barrier of the cluster again before it has waited there", where);
  }
  thread.at_cluster = true;
  thread.cluster_phase = cluster.phase;
  block.order.publish(thread.number, cluster.arrived);
  ++cluster.arrivals;
  open_if_complete(cluster);
}

void wait_for_cluster(const Where& where) {
  const InSimulator scope;
  Block& block = *running_block;
  Thread& thread = *block.current;
  if (!thread.at_cluster) {
    fail_here(Kind::kBarrierDivergence,
              "waits at the barrier of the cluster, where it has not arrived", where);
  }
  if (thread.cluster_phase == block.cluster->phase) {
    thread.wait = {.what = Wait::For::kCluster, .where = where};
    stop_here();
  }
  thread.at_cluster = false;
  block.order.acquire(thread.number, block.cluster->completed);
}

bool holds_up_cluster(const Block* block) {
  return std::any_of(block->threads.begin(), block->threads.end(), [](const Thread& thread) {
    return thread.state == Thread::State::kWaiting && thread.wait.what != Wait::For::kCluster;
  });
}

void leave_cluster(Block& block, const Thread& thread) {
  Cluster& cluster = *block.cluster;
  --cluster.alive;
  if (thread.at_cluster && thread.cluster_phase == cluster.phase) --cluster.arrivals;
  open_if_complete(cluster);
}

std::uintptr_t map_shared(std::uintptr_t shared, unsigned rank, const Where& where) {
  const InSimulator scope;
  const Block& block = *running_block;
  if (rank >= cluster_size()) {
    fail_here(Kind::kBadInstruction,
              "maps shared memory to block " + std::to_string(rank) + " of a cluster of " +
                  std::to_string(cluster_size()),
              where);
  }
  if (shared - block.shared >= kSharedWindow) {
    fail_here(Kind::kBadInstruction, "maps what is not in its block's dynamic shared memory",
              where);
  }
  return shared - block.shared + block.cluster->blocks[rank]->shared;
}

std::string owner_name(const Block& owner) {
  if (&owner == running_block) return "";
  const Dim& i = owner.index;
  return " of block (" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " +
         std::to_string(i.z) + ")";
}

void note_use(Block& owner, unsigned number, const Use& use) {
  owner.uses[running_block->global_number(number)] = use;
}

void report_late_uses(Block& block) {
  if (block.uses.empty()) return;
  std::vector<unsigned> threads(block.size());
  std::iota(threads.begin(), threads.end(), 0u);
  ThreadClock known;
  block.order.publish(threads, known);
  const std::uint32_t stride = block.size() + kMostAsynchronous;
  const Cluster& cluster = *block.cluster;
  for (const auto& [user, use] : block.uses) {
    const Epochs* epochs = known.of(user / stride);
    const std::uint32_t thread = user % stride;
    if (epochs && thread < (*epochs)->size() && use.epoch <= (**epochs)[thread]) continue;
    // The finding is the user's.
    running_block = cluster.blocks[user / stride % cluster.blocks.size()];
    const std::string issued =
        use.operation ? "issued " + std::string(use.operation) + ", which " : "";
    report(finding_about(Kind::kNotOrdered, running_block->threads[use.thread],
                         issued + "uses shared memory" + owner_name(block) +
                             ", whose end nothing orders behind that",
                         source_line(use.code - 1).place));
    running_block = &block;
  }
}

}  // namespace simt
