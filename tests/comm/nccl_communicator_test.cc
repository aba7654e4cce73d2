// NCCL on the simulated device, whose faults are planted.
#include "serrate/nccl_communicator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "comm/nccl_watchdog.h"
#include "serrate/thread_communicator.h"
#include "src/core/json.h"
#include "tests/comm/conformance.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/nccl_fault.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using namespace std::chrono_literals;
using simt::NcclFault;
using Counts = std::vector<std::int64_t>;

const Device kGpu = Device::cuda(0);

/// Ranks as threads, all of them on the one GPU.
void run_nccl_ranks(int size, std::chrono::milliseconds deadline, const NcclOptions& options,
                    const std::function<void(Communicator&)>& body) {
  run_thread_ranks(size, 30s, [&](Communicator& threads) {
    const auto nccl = make_nccl_communicator(threads.split(0), kGpu, options);
    nccl->set_deadline(deadline);
    body(*nccl);
  });
}

Ranks nccl_ranks(int size) {
  return {std::to_string(size), size, kGpu, [size](auto deadline, const auto& body) {
            run_nccl_ranks(size, deadline, {.sharing = GpuSharing::kAllowed}, body);
          }};
}

INSTANTIATE_TEST_SUITE_P(Nccl, CommunicatorConformance,
                         ::testing::Values(nccl_ranks(1), nccl_ranks(2), nccl_ranks(3),
                                           nccl_ranks(4)),
                         ::testing::PrintToStringParamName());

TEST(NcclCommunicator, RefusesTwoRanksOnOneGpu) {
  int refused = 0;
  std::mutex mutex;
  EXPECT_THROW(run_thread_ranks(
                   2, 30s,
                   [&](Communicator& threads) {
                     try {
                       make_nccl_communicator(threads.split(0), kGpu);
                     } catch (const Error& error) {
                       const std::lock_guard lock(mutex);
                       refused +=
                           error.exit_code() == 2 &&
                           std::string(error.what()).find("ranks 0 and 1 have the same GPU") == 0;
                       throw;
                     }
                   }),
               Error);
  EXPECT_EQ(refused, 2);
}

/// What a job says of a fault that is planted in the fourth exchange of rows of rank 1.
struct Outcome {
  std::vector<std::string> errors;  // of each rank's calls
  std::vector<std::string> alarms;  // of watchdogs
  std::vector<nlohmann::json> records;
};

Outcome run_with_fault(NcclFault fault) {
  fault.rank = 1;
  fault.launch = 3;
  simt::plant_nccl_fault(fault);
  const testing::TemporaryFolder folder;
  Outcome outcome;
  outcome.errors.resize(2);
  std::mutex mutex;
  const auto on_failure = [&](const Error& error) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(error.exit_code(), 75);
    outcome.alarms.emplace_back(error.what());
  };
  const auto body = [&](Communicator& c) {
    const Stream stream(kGpu);
    Buffer<float> rows = Buffer<float>::zeros(2, stream), received(2, stream);
    const Counts one(2, 1);
    try {
      for (int step = 0; step < 10; ++step) {
        c.all_to_all<float>("rows", {rows.span(), one}, {received.span(), one}, 1, stream);
        stream.synchronize();
      }
    } catch (const Error& error) {
      outcome.errors[c.rank()] = error.what();
    }
  };
  run_nccl_ranks(2, 4000ms, {GpuSharing::kAllowed, folder.file(""), on_failure}, body);
  simt::plant_nccl_fault(std::nullopt);
  for (int rank = 0; rank < 2; ++rank) {
    outcome.records.push_back(parse_json(
        testing::read_file(folder.file("flight_recorder.rank" + std::to_string(rank) + ".json")),
        "record"));
  }
  return outcome;
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << "no \"" << part << "\" in: " << text;
}

TEST(NcclCommunicator, ARankWhoseGpuHangsIsAnErrorAtTheDeadline) {
  const Outcome outcome = run_with_fault({.effect = NcclFault::Effect::kNeverRuns});
  ASSERT_EQ(outcome.alarms.size(), 2u);
  for (int rank = 0; rank < 2; ++rank) {
    const std::string name = "rank " + std::to_string(rank) + ": all_to_all \"rows\" #4: ";
    expect_in(name + "the GPU did not end it within 4000 ms", outcome.errors[rank]);
    EXPECT_TRUE(std::count(outcome.alarms.begin(), outcome.alarms.end(), outcome.errors[rank]));

    const nlohmann::json& record = outcome.records[rank];
    EXPECT_EQ(record["rank"], rank);
    EXPECT_EQ(record["size"], 2);
    EXPECT_EQ(record["device"], "cuda:0");
    EXPECT_EQ(record["failure"], outcome.errors[rank]);
    ASSERT_EQ(record["operations"].size(), 4u);
    const nlohmann::json& last = record["operations"][3];
    EXPECT_EQ(last["operation"], "all_to_all \"rows\" #4");
    EXPECT_EQ(last["ranks"], "0, 1");
    EXPECT_EQ(last["stage"], "queued");
    EXPECT_EQ(last["sent_bytes"], 8);
    EXPECT_EQ(last["received_bytes"], 8);
    EXPECT_TRUE(last["queued_s"].is_number());
    EXPECT_LE(last["queued_s"], last["began_s"]);
    EXPECT_TRUE(last["done_s"].is_null());
  }
}

TEST(NcclCommunicator, AConnectionThatDoesNotComeAboutIsAnErrorAtTheDeadline) {
  const Outcome outcome = run_with_fault({.effect = NcclFault::Effect::kNeverQueued});
  expect_in("rank 1: all_to_all \"rows\" #4: NCCL was not ready within 4000 ms", outcome.errors[1]);
  expect_in("rank 0: all_to_all \"rows\" #4: the GPU did not end it within 4000 ms",
            outcome.errors[0]);
}

TEST(NcclCommunicator, ALaunchThatNcclRefusesIsAnErrorOfItsRank) {
  const Outcome outcome =
      run_with_fault({.effect = NcclFault::Effect::kRefused, .error = ncclUnhandledCudaError});
  expect_in("rank 1: all_to_all \"rows\" #4: NCCL: unhandled CUDA error", outcome.errors[1]);
  expect_in("rank 0: all_to_all \"rows\" #4: ", outcome.errors[0]);  // whoever says it first
  EXPECT_EQ(outcome.records[1]["operations"][3]["stage"], "headers");
}

TEST(NcclCommunicator, WhatNcclReportsLaterIsAnErrorBeforeTheDeadline) {
  const Outcome outcome =
      run_with_fault({.effect = NcclFault::Effect::kFails, .error = ncclRemoteError});
  expect_in("rank 1: all_to_all \"rows\" #4: NCCL: remote error", outcome.errors[1]);
}

TEST(NcclCommunicator, ARankThatFailsIsNamedByItsPeers) {
  std::string peer_error;
  EXPECT_THROW(run_nccl_ranks(2, 30s, {.sharing = GpuSharing::kAllowed},
                              [&](Communicator& c) {
                                const Stream stream(kGpu);
                                Buffer<float> value = Buffer<float>::zeros(1, stream);
                                c.all_reduce_sum("sum", value.span(), stream);
                                stream.synchronize();
                                if (c.rank() == 1) throw Error("row 7 is damaged");
                                try {
                                  c.all_reduce_sum("sum", value.span(), stream);
                                } catch (const Error& error) {
                                  peer_error = error.what();
                                }
                              }),
               Error);
  expect_in("rank 0: all_reduce_sum \"sum\" #2: rank 1 left", peer_error);
}

// The second operation is late by what it waited for the first.
TEST(NcclWatchdog, AnOperationHasItsTimeFromTheEndOfTheOneBefore) {
  using Clock = NcclWatchdog::Clock;
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  NcclHandle handle;
  ASSERT_EQ(handle.start(id, 0, 1, kGpu, Clock::now() + 30s), ncclSuccess);
  std::atomic<int> looks = 0;
  std::atomic<bool> first_ends = false;
  const Stream stream(kGpu);
  simt::enqueue_waiting(
      simt::stream_id(static_cast<cudaStream_t>(stream.native())), "first", [](const auto&) {},
      [&] {
        ++looks;
        return first_ends.load();
      },
      [] { return false; });
  std::atomic<int> failures = 0;
  NcclWatchdog watchdog(0, 1, kGpu, {.on_failure = [&](const Error&) { ++failures; }});
  watchdog.watch({"first", 0, &handle, Clock::now() + 1h, 160ms}, stream);
  watchdog.watch({"second", 1, &handle, Clock::now() - 1s, 1h}, stream);
  looks = 0;
  while (looks < 2 && failures == 0) std::this_thread::sleep_for(10ms);  // the watchdog's
  first_ends = true;
  stream.synchronize();
  EXPECT_EQ(failures, 0);
  EXPECT_NO_THROW(watchdog.check_health());
}

// The default: nobody is asked, the process ends.
TEST(NcclCommunicatorDeathTest, EndsTheProcessWithoutAHandler) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        simt::plant_nccl_fault(NcclFault{.rank = 1, .effect = NcclFault::Effect::kNeverRuns});
        run_nccl_ranks(2, 4000ms, {.sharing = GpuSharing::kAllowed}, [](Communicator& c) {
          const Stream stream(kGpu);
          Buffer<float> value = Buffer<float>::zeros(1, stream);
          c.all_reduce_sum("sum", value.span(), stream);
          stream.synchronize();
        });
      },
      ::testing::ExitedWithCode(75), "all_reduce_sum \"sum\" #1: the GPU did not end it");
}

}  // namespace
}  // namespace serrate
