#include "serrate/mpi_communicator.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>

#include "serrate/error.h"
#include "tests/comm/conformance.h"
#include "tests/support/devices.h"

namespace {

// What the communicator asks MPI for.
int largest_count = 0;
int num_sends = 0;

}  // namespace

/// MPI's profiling interface: a program may define any MPI function in terms of its PMPI twin.
extern "C" int MPI_Isend(const void* data, int count, MPI_Datatype type, int peer, int tag,
                         MPI_Comm comm, MPI_Request* request) {
  constexpr int kRowsTag = 2;
  if (tag == kRowsTag) {
    largest_count = std::max(largest_count, count);
    ++num_sends;
  }
  return PMPI_Isend(data, count, type, peer, tag, comm, request);
}

namespace serrate {
namespace {

INSTANTIATE_TEST_SUITE_P(Mpi, CommunicatorConformance,
                         testing::Values(Ranks{"mpirun", mpirun_size(), test_devices().front(),
                                               [](auto deadline, const auto& body) {
                                                 body(*make_mpi_communicator(deadline));
                                               }}),
                         testing::PrintToStringParamName());

TEST(MpiCommunicator, KnowsThatMpirunStartedIt) {
  EXPECT_TRUE(launched_by_mpirun());
}

TEST(MpiCommunicator, MovesMoreThanTheLargestCountInSeveralMessages) {
  // 3000 rows of 16 bytes for each peer: 3000 rows, or 48000 bytes where a row is too long.
  for (const auto& [max_count, sends_per_peer] :
       {std::pair(3000, 1), {2999, 2}, {1000, 3}, {16, 188}, {15, 3200}}) {
    const auto c = make_mpi_communicator(std::chrono::seconds(30), max_count);
    std::vector<float> send, expected;
    for (int p = 0; p < c->size(); ++p) {
      for (int i = 0; i < 3000 * 4; ++i) {
        send.push_back(static_cast<float>(1000 * i + 10 * c->rank() + p));
        expected.push_back(static_cast<float>(1000 * i + 10 * p + c->rank()));
      }
    }
    const Stream stream;
    const Buffer<float> sent(send, stream);
    Buffer<float> received(std::ssize(expected), stream);
    const std::vector<std::int64_t> counts(c->size(), 3000);
    largest_count = num_sends = 0;
    c->all_to_all<float>("rows", {sent.span(), counts}, {received.span(), counts}, 4, stream);
    EXPECT_EQ(received.to_host(stream), expected) << "at most " << max_count;
    EXPECT_EQ(num_sends, sends_per_peer * (c->size() - 1)) << "at most " << max_count;
    EXPECT_LE(largest_count, max_count);
    check_random_exchanges(*c, 3, stream);
  }
}

// More than the memory through which rows of a GPU go holds at once, in sizes that differ between
// peers, and again while the last of them may still be on their way to the device.
TEST(MpiCommunicator, MovesMoreThanItsMemoryHolds) {
  const Stream stream(test_devices().front());
  const auto c = make_mpi_communicator(std::chrono::seconds(60));
  const auto value = [](int from, int to, std::int64_t i) {
    return static_cast<std::int32_t>(1'000'003 * i + 101 * from + to);
  };
  const auto size = [](int from, int to) { return (std::int64_t{1} << 20) * 3 / 2 * from + to; };
  for (int again = 0; again < 2; ++again) {
    std::vector<std::int32_t> send, expected;
    std::vector<std::int64_t> send_counts, receive_counts;
    for (int p = 0; p < c->size(); ++p) {
      send_counts.push_back(size(c->rank(), p));
      receive_counts.push_back(size(p, c->rank()));
      for (std::int64_t i = 0; i < send_counts.back(); ++i) send.push_back(value(c->rank(), p, i));
      for (std::int64_t i = 0; i < receive_counts.back(); ++i) {
        expected.push_back(value(p, c->rank(), i));
      }
    }
    const Buffer<std::int32_t> sent(send, stream);
    Buffer<std::int32_t> first(std::ssize(expected), stream), second(std::ssize(expected), stream);
    for (Buffer<std::int32_t>* received : {&first, &second}) {
      c->all_to_all<std::int32_t>("rows", {sent.span(), send_counts},
                                  {received->span(), receive_counts}, 1, stream);
    }
    EXPECT_EQ(first.to_host(stream), expected);
    EXPECT_EQ(second.to_host(stream), expected);
  }
}

TEST(MpiCommunicator, RefusesCountsThatMpiCannotTake) {
  EXPECT_THROW(make_mpi_communicator(std::chrono::seconds(30), std::int64_t{1} << 31), Error);
  EXPECT_THROW(make_mpi_communicator(std::chrono::seconds(30), 0), Error);
}

}  // namespace
}  // namespace serrate
