// NCCL on the simulated device, ranks as threads: values by hand, and planted bugs.
#include <nccl.h>

#include <atomic>
#include <functional>
#include <thread>

#include "tests/simt/planted_bug.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/small_floats.h"

namespace simt {
namespace {

struct Rank {
  int rank = 0;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;

  void wait() const { cudaStreamSynchronize(stream); }
};

// f(rank) on a thread for each, with a communicator of all; f may take the communicator away.
void on_ranks(int size, const std::function<void(Rank&)>& f) {
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

TEST(Nccl, SumsOverRanks) {
  on_ranks(3, [](Rank& me) {
    const float r = static_cast<float>(me.rank);
    const Array<float> x({r, 10 * r, 1}), sum(3);
    ncclAllReduce(x.data(), sum.data(), 3, ncclFloat32, ncclSum, me.comm, me.stream);
    const Array<std::int64_t> y(std::vector<std::int64_t>{std::int64_t{1} << 40, -me.rank});
    ncclAllReduce(y.data(), y.data(), 2, ncclInt64, ncclSum, me.comm, me.stream);
    const Array<float> peak(std::vector<float>{-r});
    ncclAllReduce(peak.data(), peak.data(), 1, ncclFloat32, ncclMax, me.comm, me.stream);
    const Array<std::uint16_t> half(std::vector<std::uint16_t>{float_to_bfloat16(r + 0.5f)});
    ncclAllReduce(half.data(), half.data(), 1, ncclBfloat16, ncclAvg, me.comm, me.stream);
    me.wait();
    EXPECT_EQ(sum.host(), (std::vector<float>{3, 30, 3}));
    EXPECT_EQ(y.host(), (std::vector<std::int64_t>{std::int64_t{3} << 40, -3}));
    EXPECT_EQ(peak.host()[0], 0);
    EXPECT_EQ(bfloat16_to_float(half.host()[0]), 1.5f);
  });
  expect_nothing_found();
}

TEST(Nccl, MovesBlocks) {
  on_ranks(2, [](Rank& me) {
    const int r = me.rank;
    const Array<int> x(std::vector<int>{10 * r + 1, 10 * r + 2}), gathered(4), part(1), turned(2);
    ncclAllGather(x.data(), gathered.data(), 2, ncclInt32, me.comm, me.stream);
    ncclReduceScatter(x.data(), part.data(), 1, ncclInt32, ncclSum, me.comm, me.stream);
    ncclAlltoAll(x.data(), turned.data(), 1, ncclInt32, me.comm, me.stream);
    const Array<int> news(std::vector<int>{r}), root(std::vector<int>{r + 5});
    ncclBroadcast(news.data(), news.data(), 1, ncclInt32, 1, me.comm, me.stream);
    ncclReduce(root.data(), root.data(), 1, ncclInt32, ncclSum, 0, me.comm, me.stream);
    me.wait();
    EXPECT_EQ(gathered.host(), (std::vector<int>{1, 2, 11, 12}));
    EXPECT_EQ(part.host()[0], r == 0 ? 12 : 14);
    EXPECT_EQ(turned.host(), r == 0 ? (std::vector<int>{1, 11}) : (std::vector<int>{2, 12}));
    EXPECT_EQ(news.host()[0], 1);
    EXPECT_EQ(root.host()[0], r == 0 ? 11 : 6);
  });
  expect_nothing_found();
}

// Rank r sends r + p elements to rank p: a group of as many sends and receives as ranks.
TEST(Nccl, JaggedAllToAllAsAGroup) {
  on_ranks(3, [](Rank& me) {
    const int r = me.rank, size = 3 * r + 3;
    std::vector<int> values;
    for (int p = 0; p < 3; ++p) values.insert(values.end(), r + p, 100 * r + p);
    const Array<int> send(values), recv(size);
    int from = 0, to = 0;
    ncclGroupStart();
    for (int p = 0; p < 3; ++p) {
      ncclSend(send.data() + from, r + p, ncclInt32, p, me.comm, me.stream);
      ncclRecv(recv.data() + to, r + p, ncclInt32, p, me.comm, me.stream);
      from += r + p;
      to += r + p;
    }
    EXPECT_EQ(ncclGroupEnd(), ncclSuccess);
    me.wait();
    std::vector<int> expected;
    for (int p = 0; p < 3; ++p) expected.insert(expected.end(), r + p, 100 * p + r);
    EXPECT_EQ(recv.host(), expected);
  });
  expect_nothing_found();
}

TEST(Nccl, Splits) {
  on_ranks(4, [](Rank& me) {
    // Odd and even ranks, in falling order; rank 3 stays away from the second.
    ncclComm_t half = nullptr, three = nullptr;
    EXPECT_EQ(ncclCommSplit(me.comm, me.rank % 2, -me.rank, &half, nullptr), ncclSuccess);
    int rank = -1, size = -1;
    ncclCommUserRank(half, &rank);
    ncclCommCount(half, &size);
    EXPECT_EQ(rank, me.rank < 2 ? 1 : 0);
    EXPECT_EQ(size, 2);
    const Array<int> x(std::vector<int>{me.rank});
    ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, half, me.stream);
    me.wait();
    EXPECT_EQ(x.host()[0], me.rank % 2 == 0 ? 2 : 4);
    ncclCommSplit(me.comm, me.rank == 3 ? NCCL_SPLIT_NOCOLOR : 0, 0, &three, nullptr);
    EXPECT_EQ(three == nullptr, me.rank == 3);
    ncclCommDestroy(half);
    if (three) ncclCommDestroy(three);
  });
  expect_nothing_found();
}

ncclResult_t wait_for(ncclComm_t comm) {
  ncclResult_t result = ncclInProgress;
  while (result == ncclInProgress) {
    ncclCommGetAsyncError(comm, &result);
    std::this_thread::yield();
  }
  return result;
}

// With `patient`, every call's end is waited for.
void without_blocking(bool patient) {
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
      config.blocking = 0;
      ncclComm_t comm = nullptr;
      cudaStream_t stream = nullptr;
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      EXPECT_EQ(ncclCommInitRankConfig(&comm, 2, id, r, &config), ncclInProgress);
      EXPECT_EQ(wait_for(comm), ncclSuccess);
      const Array<int> x(std::vector<int>{r + 1});
      EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, comm, stream),
                ncclInProgress);
      if (!patient) {
        EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, comm, stream),
                  ncclInvalidUsage);
      }
      EXPECT_EQ(wait_for(comm), ncclSuccess);
      cudaStreamSynchronize(stream);
      EXPECT_EQ(x.host()[0], 3);
      EXPECT_EQ(ncclCommFinalize(comm), ncclInProgress);
      EXPECT_EQ(wait_for(comm), ncclSuccess);
      EXPECT_EQ(ncclCommDestroy(comm), ncclSuccess);
      cudaStreamDestroy(stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Nccl, WithoutBlocking) {
  without_blocking(true);
  expect_nothing_found();
}

TEST(PlantedNccl, CallBeforeTheOneBeforeIsOver) {
  without_blocking(false);
  expect_found_on_host(Kind::kBadCall, "ncclAllReduce: the call before is in progress");
}

TEST(PlantedNccl, CountsThatDiffer) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(4, 1)), y(4);
    ncclAllReduce(x.data(), y.data(), me.rank == 0 ? 4 : 3, ncclInt32, ncclSum, me.comm, me.stream);
    me.wait();
    ncclResult_t error = ncclSuccess;
    ncclCommGetAsyncError(me.comm, &error);
    ncclCommAbort(me.comm);
    me.comm = nullptr;
  });
  expect_found_on_host(Kind::kBadCall, "ncclAllReduce of 3 elements");
}

TEST(PlantedNccl, TypesThatDifferBetweenSendAndReceive) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(4, 1));
    if (me.rank == 0) {
      ncclSend(x.data(), 4, ncclInt32, 1, me.comm, me.stream);
    } else {
      ncclRecv(x.data(), 4, ncclFloat32, 0, me.comm, me.stream);
    }
    me.wait();
    ncclCommAbort(me.comm);
    me.comm = nullptr;
  });
  expect_found_on_host(Kind::kBadCall, "of 4 elements of type 7 from rank 0");
}

TEST(PlantedNccl, AnotherCollective) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(4, 1)), y(8);
    if (me.rank == 0) {
      ncclAllReduce(x.data(), y.data(), 4, ncclInt32, ncclSum, me.comm, me.stream);
    } else {
      ncclAllGather(x.data(), y.data(), 4, ncclInt32, me.comm, me.stream);
    }
    me.wait();
    ncclCommAbort(me.comm);
    me.comm = nullptr;
  });
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_NE(findings[0].text.find("ncclAllGather of 4"), std::string::npos) << findings[0].text;
  EXPECT_NE(findings[0].text.find("ncclAllReduce of 4"), std::string::npos) << findings[0].text;
}

TEST(PlantedNccl, SendWithoutReceive) {
  const Impatient impatient;
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(4, 1));
    if (me.rank == 0) ncclSend(x.data(), 4, ncclInt32, 1, me.comm, me.stream);
    me.wait();
    if (me.rank == 0) {
      ncclResult_t error = ncclSuccess;
      ncclCommGetAsyncError(me.comm, &error);
      EXPECT_EQ(error, ncclRemoteError);
    } else {  // is there until rank 0 has given up
      std::this_thread::sleep_for(std::chrono::milliseconds(900));
    }
  });
  expect_found_on_host(Kind::kDeadlock, "rank 0 of 2");
}

// Each rank sends and then receives: right in a group, and a deadlock one by one.
void exchange(bool grouped) {
  on_ranks(2, [grouped](Rank& me) {
    const Array<int> x(std::vector<int>{me.rank + 7}), y(1);
    if (grouped) ncclGroupStart();
    ncclSend(x.data(), 1, ncclInt32, 1 - me.rank, me.comm, me.stream);
    ncclRecv(y.data(), 1, ncclInt32, 1 - me.rank, me.comm, me.stream);
    if (grouped) ncclGroupEnd();
    me.wait();
    if (grouped) {
      EXPECT_EQ(y.host()[0], 8 - me.rank);
    }
  });
}

TEST(PlantedNccl, SendBeforeReceiveOnBothSides) {
  exchange(true);
  expect_nothing_found();
  const Impatient impatient;
  exchange(false);
  expect_found_on_host(Kind::kDeadlock, "waits in ncclSend");
}

// Two communicators in streams of their own: their kernels may not fit on a device together.
void use_two(bool same_order) {
  on_ranks(2, [same_order](Rank& me) {
    ncclComm_t second = nullptr;
    cudaStream_t other = nullptr;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    ncclCommSplit(me.comm, 0, 0, &second, nullptr);
    const Array<int> x(std::vector<int>{1}), y(std::vector<int>{2});
    const auto first_call = [&] {
      ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, me.comm, me.stream);
    };
    if (same_order || me.rank == 0) first_call();
    ncclAllReduce(y.data(), y.data(), 1, ncclInt32, ncclSum, second, other);
    if (!same_order && me.rank == 1) first_call();
    me.wait();
    cudaStreamSynchronize(other);
    if (same_order) {
      EXPECT_EQ(x.host()[0] + y.host()[0], 6);
    }
    ncclCommDestroy(second);
    cudaStreamDestroy(other);
  });
}

TEST(PlantedNccl, OrdersThatDiffer) {
  use_two(true);
  expect_nothing_found();
  const Impatient impatient;
  use_two(false);
  expect_found_on_host(Kind::kDeadlock, "waits in another order");
}

TEST(PlantedNccl, ARankThatNeverJoins) {
  const Impatient impatient;
  ncclUniqueId id;
  ncclGetUniqueId(&id);
  ncclComm_t comm = nullptr;
  EXPECT_EQ(ncclCommInitRank(&comm, 2, id, 0), ncclSystemError);
  expect_found_on_host(Kind::kDeadlock, "waits for ranks that have not called it: 1");
  ncclCommAbort(comm);
}

TEST(PlantedNccl, BufferFreedBeforeTheStreamGetsThere) {
  const auto reduce = [](bool in_order) {
    on_ranks(2, [in_order](Rank& me) {
      cudaStream_t other = nullptr;
      cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
      int* x = nullptr;
      cudaMallocAsync(reinterpret_cast<void**>(&x), 16, me.stream);
      cudaMemsetAsync(x, 0, 16, me.stream);
      me.wait();
      ncclAllReduce(x, x, 4, ncclInt32, ncclSum, me.comm, me.stream);
      cudaFreeAsync(x, in_order ? me.stream : other);
      me.wait();
      cudaStreamSynchronize(other);
      cudaStreamDestroy(other);
    });
  };
  reduce(true);
  expect_nothing_found();
  reduce(false);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  for (const Finding& f : findings) {
    EXPECT_TRUE(f.kind == Kind::kNotOrdered || f.kind == Kind::kUseAfterFree) << f.text;
  }
}

TEST(PlantedNccl, BufferWrittenByAnotherStream) {
  const auto gather = [](bool with_event) {
    on_ranks(2, [with_event](Rank& me) {
      cudaStream_t other = nullptr;
      cudaEvent_t event = nullptr;
      cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
      cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
      const Array<int> x(std::vector<int>(4, 1)), all(8);
      ncclAllGather(x.data(), all.data(), 4, ncclInt32, me.comm, me.stream);
      cudaEventRecord(event, me.stream);
      if (with_event) cudaStreamWaitEvent(other, event);
      cudaMemsetAsync(x.data(), 0, 16, other);
      me.wait();
      cudaStreamSynchronize(other);
      cudaEventDestroy(event);
      cudaStreamDestroy(other);
    });
  };
  gather(true);
  expect_nothing_found();
  gather(false);
  expect_found_on_host(Kind::kStreamRace, "ncclAllGather");
}

TEST(PlantedNccl, BufferThatIsTooShort) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(4, 1)), all(7);
    ncclAllGather(x.data(), all.data(), 4, ncclInt32, me.comm, me.stream);
    me.wait();
  });
  expect_found_on_host(Kind::kOutOfBounds, "writes the receive buffer of ncclAllGather");
}

TEST(PlantedNccl, SendsWhatNothingWrote) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(4), y(4);
    ncclAllReduce(x.data(), y.data(), 4, ncclInt32, ncclSum, me.comm, me.stream);
    me.wait();
  });
  expect_found_on_host(Kind::kNotWritten, "reads the send buffer of ncclAllReduce");
}

TEST(PlantedNccl, BuffersThatOverlapOrAreTheHosts) {
  on_ranks(1, [](Rank& me) {
    const Array<int> x(std::vector<int>(8, 1));
    EXPECT_EQ(ncclAllReduce(x.data(), x.data() + 2, 4, ncclInt32, ncclSum, me.comm, me.stream),
              ncclInvalidArgument);
  });
  expect_found_on_host(Kind::kBadCall, "the buffers overlap");
  on_ranks(1, [](Rank& me) {
    const Array<int> x(std::vector<int>(8, 1));
    int host = 0;
    EXPECT_EQ(ncclAllReduce(&host, x.data(), 1, ncclInt32, ncclSum, me.comm, me.stream),
              ncclInvalidArgument);
  });
  expect_found_on_host(Kind::kBadCall, "the send buffer is not in device memory");
}

TEST(PlantedNccl, OneCommunicatorOfTwoThreads) {
  on_ranks(1, [](Rank& me) {
    const Array<int> x(std::vector<int>(1, 1));
    EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, me.comm, me.stream),
              ncclSuccess);
    std::thread([&] {
      EXPECT_EQ(ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, me.comm, me.stream),
                ncclInvalidUsage);
    }).join();
    me.wait();
  });
  expect_found_on_host(Kind::kBadCall, "is used by two threads");
}

TEST(PlantedNccl, DestroyedCommunicator) {
  on_ranks(1, [](Rank& me) {
    const ncclComm_t gone = std::exchange(me.comm, nullptr);
    ncclCommDestroy(gone);
    EXPECT_EQ(ncclCommDestroy(gone), ncclInvalidArgument);
  });
  expect_found_on_host(Kind::kBadCall, "ncclCommDestroy: the communicator does not exist");
}

// A watchdog: the stream does not get past a call that rank 1 never makes, until rank 0 aborts.
TEST(Nccl, AbortEndsWhatWaits) {
  on_ranks(2, [](Rank& me) {
    const Array<int> x(std::vector<int>(1, 1));
    if (me.rank == 0) {
      ncclAllReduce(x.data(), x.data(), 1, ncclInt32, ncclSum, me.comm, me.stream);
      for (int i = 0; i < 20; ++i) EXPECT_EQ(cudaStreamQuery(me.stream), cudaErrorNotReady);
      std::atomic<bool> waits = false;
      std::thread watchdog([&] {
        while (!waits) std::this_thread::yield();
        EXPECT_EQ(ncclCommAbort(me.comm), ncclSuccess);
      });
      waits = true;
      me.wait();
      watchdog.join();
      EXPECT_EQ(cudaStreamQuery(me.stream), cudaSuccess);
    } else {
      ncclCommAbort(me.comm);
    }
    me.comm = nullptr;
  });
  expect_nothing_found();
}

TEST(PlantedNccl, Leaks) {
  const auto before = live_library_objects().size();
  on_ranks(1, [before](Rank&) { EXPECT_EQ(live_library_objects().size(), before + 1); });
  EXPECT_EQ(live_library_objects().size(), before);
}

}  // namespace
}  // namespace simt
