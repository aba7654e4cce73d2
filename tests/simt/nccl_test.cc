// NCCL on the simulated device, ranks as threads: values by hand.
#include <nccl.h>

#include <atomic>
#include <thread>

#include "tests/simt/nccl_ranks.h"
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/small_floats.h"

namespace simt {
namespace {

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

}  // namespace
}  // namespace simt
