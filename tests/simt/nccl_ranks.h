#pragma once

#include <gtest/gtest.h>
#include <nccl.h>

#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "tests/support/simt/library.h"

namespace simt {

struct Rank {
  int rank = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;

  void wait() const { cudaStreamSynchronize(stream); }
};

// f(rank) on a thread for each, with a communicator of all; f may take the communicator away.
inline void on_ranks(int size, const std::function<void(Rank&)>& f) {
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      Rank rank{.rank = r};
      cudaStreamCreateWithFlags(&rank.stream, cudaStreamNonBlocking);
      EXPECT_EQ(ncclCommInitRank(&rank.comm, size, id, r), ncclSuccess);
      f(rank);
      if (rank.comm) ncclCommDestroy(rank.comm);
      cudaStreamDestroy(rank.stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Deadlocks are planted here: shorter patience for a test.
class Impatient {
 public:
  Impatient() : before_(patience()) { set_patience(std::chrono::milliseconds(300)); }
  ~Impatient() { set_patience(before_); }

 private:
  std::chrono::milliseconds before_;
};

}  // namespace simt
