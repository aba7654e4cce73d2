#include "serrate/mpi_communicator.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <algorithm>

#include "serrate/error.h"
#include "tests/comm/conformance.h"

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

/// MPI_COMM_WORLD is not yet there when the suite is instantiated.
int world_size() {
  const char* size = std::getenv("OMPI_COMM_WORLD_SIZE");
  return size ? std::stoi(size) : 1;
}

INSTANTIATE_TEST_SUITE_P(Mpi, CommunicatorConformance,
                         testing::Values(Ranks{"mpirun", world_size(),
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
    Buffer<float> receive;
    std::vector<std::int64_t> counts;
    largest_count = num_sends = 0;
    c->all_to_all<float>("rows", send, std::vector<std::int64_t>(c->size(), 3000), 4, receive,
                         counts, Stream());
    EXPECT_EQ(receive.to_host(Stream()), expected) << "at most " << max_count;
    EXPECT_EQ(num_sends, sends_per_peer * (c->size() - 1)) << "at most " << max_count;
    EXPECT_LE(largest_count, max_count);
    check_random_exchanges(*c, 3);
  }
}

TEST(MpiCommunicator, RefusesCountsThatMpiCannotTake) {
  EXPECT_THROW(make_mpi_communicator(std::chrono::seconds(30), std::int64_t{1} << 31), Error);
  EXPECT_THROW(make_mpi_communicator(std::chrono::seconds(30), 0), Error);
}

}  // namespace
}  // namespace serrate
