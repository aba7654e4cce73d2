// How ranks become a communicator.
#include <cstring>

#include "tests/support/simt/nccl_process.h"

namespace simt::nccl {
namespace {

// Waits for other ranks' calls on the host. False when they don't come.
template <typename Done>
bool wait_for_ranks(const Done& done) {
  auto moved_at = std::chrono::steady_clock::now();
  std::uint64_t seen = movements();
  while (!done()) {
    const auto now = std::chrono::steady_clock::now();
    if (seen != movements()) {
      seen = movements();
      moved_at = now;
    } else if (now - moved_at > patience()) {
      return false;
    }
    let_others_in();
  }
  return true;
}

void make_clique(const std::vector<Pointer>& ranks) {
  const auto clique = std::make_shared<Clique>();
  clique->number = state().next_clique++;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    clique->ranks.push_back(ranks[r]);
    ranks[r]->rank = static_cast<int>(r);
    ranks[r]->size = static_cast<int>(ranks.size());
    ranks[r]->clique = clique;
  }
}

}  // namespace

ncclResult_t wait_to_join(const Pointer& c, const char* call, std::uint64_t id) {
  if (!c->blocking) return ncclInProgress;
  if (wait_for_ranks([&] { return have_joined(c) || c->aborted; })) return ncclSuccess;
  std::string missing;
  for (int r = 0; r < c->size; ++r) {
    if (!state().bootstraps[id].count(r))
      missing += (missing.empty() ? "" : ", ") + std::to_string(r);
  }
  report_call(Kind::kDeadlock, std::string(call) + ": rank " + std::to_string(c->rank) + " of " +
                                   std::to_string(c->size) +
                                   " waits for ranks that have not called it: " + missing);
  return ncclSystemError;
}

namespace {

bool is_blocking(const ncclConfig_t* config, bool inherited) {
  if (!config || config->blocking == NCCL_CONFIG_UNDEF_INT) return inherited;
  return config->blocking != 0;
}

ncclResult_t join(const char* call, ncclComm_t* comm, int size, const ncclUniqueId& id, int rank,
                  const ncclConfig_t* config) {
  const Lock lock;
  std::uint64_t number = 0, process = 0;
  std::memcpy(&number, id.internal, sizeof number);
  std::memcpy(&process, id.internal + sizeof number, sizeof process);
  *comm = nullptr;
  if (size < 1 || rank < 0 || rank >= size) {
    return refuse(ncclInvalidArgument, std::string(call) + ": there is no rank " +
                                           std::to_string(rank) + " of " + std::to_string(size));
  }
  const bool is_known =
      process == state().process ? number < state().next_id : ranks_are_processes();
  if (number == 0 || !is_known || state().used_ids.count({process, number})) {
    return refuse(ncclInvalidArgument,
                  std::string(call) + ": the id was not made by ncclGetUniqueId, or is used up");
  }
  auto& bootstrap = state().bootstraps[number];
  if (bootstrap.count(rank)) {
    return refuse(ncclInvalidUsage,
                  std::string(call) + ": there are two of rank " + std::to_string(rank));
  }
  if (!bootstrap.empty() && bootstrap.begin()->second->size != size) {
    return refuse(ncclInvalidArgument, std::string(call) + ": rank " + std::to_string(rank) +
                                           " has " + std::to_string(size) + " ranks, rank " +
                                           std::to_string(bootstrap.begin()->first) + " has " +
                                           std::to_string(bootstrap.begin()->second->size));
  }
  const auto c = std::make_shared<Communicator>();
  c->rank = rank;
  c->size = size;
  c->blocking = is_blocking(config, true);
  c->in_progress = !c->blocking;
  bootstrap[rank] = c;
  *comm = handle_for(c, "NCCL communicator");
  if (ranks_are_processes()) {
    join_between_processes(*c, std::to_string(process) + "-" + std::to_string(number));
    state().used_ids.insert({process, number});
    state().bootstraps.erase(number);
  } else if (static_cast<int>(bootstrap.size()) == size) {
    std::vector<Pointer> ranks;
    for (const auto& [r, member] : bootstrap) ranks.push_back(member);
    make_clique(ranks);
    state().used_ids.insert({process, number});
    state().bootstraps.erase(number);
  }
  if (group().depth > 0) {
    group().joining.emplace_back(c, number);
    return ncclSuccess;
  }
  return wait_to_join(c, call, number);
}

// The ranks of each colour, by key.
void split_when_all_are_there(Clique& clique, std::uint64_t number) {
  auto& wishes = clique.splits[number];
  if (static_cast<int>(wishes.size()) < clique.size()) return;
  std::map<int, std::vector<std::pair<std::pair<int, int>, Pointer>>> colors;
  for (const auto& [rank, wish] : wishes) {
    if (wish->made) colors[wish->color].push_back({{wish->key, rank}, wish->made});
  }
  for (auto& [color, members] : colors) {
    std::sort(members.begin(), members.end(),
              [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<Pointer> ranks;
    for (const auto& [key, member] : members) ranks.push_back(member);
    make_clique(ranks);
  }
}

}  // namespace
}  // namespace simt::nccl

using namespace simt;
using namespace simt::nccl;

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Lock lock;
  std::memset(id, 0, sizeof *id);
  const std::uint64_t number = state().next_id++;
  std::memcpy(id->internal, &number, sizeof number);
  std::memcpy(id->internal + sizeof number, &state().process, sizeof number);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return join("ncclCommInitRank", comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  return join("ncclCommInitRankConfig", comm, size, id, rank, config);
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* made,
                           ncclConfig_t* config) {
  const Lock lock;
  ncclResult_t result = ncclSuccess;
  *made = nullptr;
  const Pointer c = usable("ncclCommSplit", comm, &result);
  if (!c) return result;
  if (!c->folder.empty()) {
    return refuse(ncclInvalidUsage, "ncclCommSplit: not simulated between processes");
  }
  if (color < 0 && color != NCCL_SPLIT_NOCOLOR) {
    return refuse(ncclInvalidArgument, "ncclCommSplit: there is no such colour");
  }
  const auto wish = std::make_shared<Joining>();
  wish->color = color;
  wish->key = key;
  if (color != NCCL_SPLIT_NOCOLOR) {
    wish->made = std::make_shared<Communicator>();
    wish->made->blocking = is_blocking(config, c->blocking);
    wish->made->in_progress = !wish->made->blocking;
    *made = handle_for(wish->made, "NCCL communicator");
  }
  const std::uint64_t number = c->splits++;
  c->last_call = "ncclCommSplit";
  c->clique->splits[number][c->rank] = wish;
  split_when_all_are_there(*c->clique, number);
  const auto all_there = [&] {
    return static_cast<int>(c->clique->splits[number].size()) == c->clique->size();
  };
  if (!c->blocking) return all_there() ? ncclSuccess : ncclInProgress;
  if (wait_for_ranks(all_there)) return ncclSuccess;
  std::string missing;
  for (int r = 0; r < c->size; ++r) {
    if (!c->clique->splits[number].count(r)) missing += " " + std::to_string(r);
  }
  report_call(Kind::kDeadlock,
              c->name() + " waits in ncclCommSplit for ranks that have not called it:" + missing);
  return ncclSystemError;
}
}
