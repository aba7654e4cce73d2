// Planted bugs: NCCL, ranks as threads.
#include <nccl.h>

#include "tests/simt/nccl_ranks.h"
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/library.h"

namespace simt {
namespace {

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

TEST(PlantedNccl, Leaks) {
  const auto before = live_library_objects().size();
  on_ranks(1, [before](Rank&) { EXPECT_EQ(live_library_objects().size(), before + 1); });
  EXPECT_EQ(live_library_objects().size(), before);
}

}  // namespace
}  // namespace simt
