#include "serrate/thread_communicator.h"

#include <gtest/gtest.h>

#include <atomic>

#include "serrate/error.h"
#include "tests/comm/conformance.h"
#include "tests/support/devices.h"
#include "tests/support/run_ranks.h"
#include "tests/support/test_sizes.h"

namespace serrate {
namespace {

Ranks threads(int size, Device device) {
  return {std::to_string(size), size, device,
          [size](auto deadline, const auto& body) { run_thread_ranks(size, deadline, body); }};
}

std::vector<Ranks> all_ranks() {
  std::vector<Ranks> ranks;
  for (const Device device : test_devices()) {
    for (const int size : {1, 2, 3, 8}) ranks.push_back(threads(size, device));
  }
  return ranks;
}

INSTANTIATE_TEST_SUITE_P(Threads, CommunicatorConformance, testing::ValuesIn(all_ranks()),
                         testing::PrintToStringParamName());

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(ThreadCommunicator, BarrierWaitsForEveryRank) {
  std::atomic<int> arrived = 0;
  run_ranks(3, [&](Communicator& c) {
    for (int round = 1; round <= 50; ++round) {
      ++arrived;
      c.barrier("arrive");
      EXPECT_EQ(arrived, 3 * round);
      c.barrier("leave");
    }
  });
}

// The peers' deadline is a minute: these tests time out if a peer waits for it.
TEST(ThreadCommunicator, ARankThatThrowsEndsTheWaitingOfItsPeers) {
  std::atomic<int> told = 0;
  const std::string error = error_of([&] {
    run_ranks(3, [&](Communicator& c) {
      if (c.rank() == 1) throw usage_error("row 7 is damaged");
      const std::string peer_error = error_of([&] { c.barrier("step"); });
      if (peer_error.find("another rank failed (rank 1: row 7 is damaged)") != std::string::npos) {
        ++told;
      }
    });
  });
  EXPECT_EQ(error, "row 7 is damaged");
  EXPECT_EQ(told, 2);
}

TEST(ThreadCommunicator, ARankThatEndsEarlyIsNamed) {
  const std::string error = error_of([] {
    run_ranks(2, [](Communicator& c) {
      c.barrier("step");
      if (c.rank() == 0) c.barrier("one more");
    });
  });
  EXPECT_EQ(error.rfind("rank 0: barrier \"one more\" #2: rank 1 left", 0), 0u) << error;
}

// Not under sanitizers, which end the program where `new` would throw.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(ThreadCommunicator, ARankWithoutMemoryFailsTheExchangeOnEveryRank) {
  std::atomic<int> failed = 0;
  run_ranks(2, [&](Communicator& c) {
    // Rank 0 announces 2^45 bytes to rank 1, which cannot have them; rank 1 sends a lot back that
    // rank 0 may be reading while rank 1 fails.
    std::vector<std::byte> memory(1 << 20);
    const std::int64_t size = c.rank() == 0 ? std::int64_t{1} << 45 : 1 << 20;
    std::vector<std::int64_t> send_counts{c.rank() == 0 ? 0 : size, c.rank() == 0 ? size : 0};
    const std::span<const std::byte> send(memory.data(), static_cast<std::size_t>(size));
    failed += !error_of([&] { c.exchange<std::byte>("huge", send, send_counts); }).empty();
    memory = {};
  });
  EXPECT_EQ(failed, 2);
}
#endif

// A rank that fails right behind an operation which all have come through does not take it back.
TEST(ThreadCommunicator, WhatIsCompleteStaysSoWhenARankFailsBehindIt) {
  if (tests_run_on_devices()) GTEST_SKIP() << "thread_communicator_test has it";
  constexpr int kTimes = 3000;
  int complete = 0;
  for (int i = 0; i < kTimes; ++i) {
    const std::string message = error_of([&] {
      run_ranks(2, [&](Communicator& communicator) {
        communicator.gather_int64("last", communicator.rank());
        if (communicator.rank() == 1) throw Error("rank 1 is wrong");
        ++complete;
      });
    });
    EXPECT_EQ(message, "rank 1 is wrong");
  }
  EXPECT_EQ(complete, kTimes);
}

}  // namespace
}  // namespace serrate
