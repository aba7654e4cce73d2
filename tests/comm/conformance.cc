#include "tests/comm/conformance.h"

#include <bit>
#include <initializer_list>
#include <numeric>

#include "comm/tree_sum.h"

namespace serrate {
namespace {

using Counts = std::vector<std::int64_t>;

/// As the simulated device is.
bool is_slow(const Stream& stream) {
  return stream.device().type != DeviceType::kCpu;
}

/// splitmix64 of the arguments: the same on every rank.
std::uint64_t mix(std::initializer_list<std::uint64_t> values) {
  std::uint64_t state = 0;
  for (const std::uint64_t value : values) {
    state += value + 0x9e3779b97f4a7c15;
    state = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
    state = (state ^ (state >> 27)) * 0x94d049bb133111eb;
    state ^= state >> 31;
  }
  return state;
}

/// Rows that rank `from` sends to rank `to` in exchange `seed`: often none, sometimes many.
std::int64_t random_count(std::uint64_t seed, int from, int to) {
  const std::uint64_t draw = mix({seed, std::uint64_t(from), std::uint64_t(to)});
  const bool silent_rank = mix({seed, std::uint64_t(from)}) % 4 == 0;
  if (silent_rank || draw % 3 == 0) return 0;
  return static_cast<std::int64_t>(draw % 5 == 0 ? draw % 3001 : draw % 8);
}

template <typename T>
T random_value(std::uint64_t seed, int from, int to, std::int64_t index) {
  return static_cast<T>(mix({seed, std::uint64_t(from), std::uint64_t(to), std::uint64_t(index)}) %
                        101);
}

template <typename T>
void check_random_exchange(Communicator& communicator, std::uint64_t seed, const Stream& stream) {
  const std::int64_t width = static_cast<std::int64_t>(mix({seed}) % 6);
  std::vector<T> send;
  Counts send_counts, expected_counts;
  std::vector<T> expected;
  for (int peer = 0; peer < communicator.size(); ++peer) {
    send_counts.push_back(random_count(seed, communicator.rank(), peer));
    for (std::int64_t i = 0; i < send_counts.back() * width; ++i) {
      send.push_back(random_value<T>(seed, communicator.rank(), peer, i));
    }
    expected_counts.push_back(random_count(seed, peer, communicator.rank()));
    for (std::int64_t i = 0; i < expected_counts.back() * width; ++i) {
      expected.push_back(random_value<T>(seed, peer, communicator.rank(), i));
    }
  }
  // The same on the host, where the counts are found out.
  Counts send_sizes;
  for (const std::int64_t count : send_counts) send_sizes.push_back(count * width);
  EXPECT_EQ(communicator.exchange<T>("random", send, send_sizes).values, expected)
      << "seed " << seed;
  const Counts ones(communicator.size(), 1);
  EXPECT_EQ(communicator.exchange<std::int64_t>("counts", send_counts, ones).values,
            expected_counts);

  const Buffer<T> sent(send, stream);
  Buffer<T> received(std::ssize(expected), stream);
  communicator.all_to_all<T>("random", {sent.span(), send_counts},
                             {received.span(), expected_counts}, width, stream);
  EXPECT_EQ(received.to_host(stream), expected) << "seed " << seed;
}

/// Values whose sum depends on the order in which they are added.
template <typename T>
T term(int rank, std::int64_t index) {
  const std::uint64_t draw = mix({std::uint64_t(rank), std::uint64_t(index)});
  const auto value = static_cast<T>(static_cast<std::int64_t>(draw % 2001) - 1000);
  return draw % 7 == 0 ? value * T(1 << 20) : value / T(3);
}

template <typename T>
std::vector<T> terms(int rank, std::int64_t size) {
  std::vector<T> values(size);
  for (std::int64_t i = 0; i < size; ++i) values[i] = term<T>(rank, i);
  return values;
}

/// Added in rank order: what every implementation has to give to the last bit.
template <typename T>
std::vector<T> sum_in_rank_order(int num_ranks, std::int64_t size) {
  std::vector<T> sum = terms<T>(0, size);
  for (int rank = 1; rank < num_ranks; ++rank) {
    for (std::int64_t i = 0; i < size; ++i) sum[i] += term<T>(rank, i);
  }
  return sum;
}

template <typename T>
void check_sums(Communicator& communicator, const Stream& stream) {
  const int size = communicator.size();
  for (const std::int64_t n : {0, 1, 2, 7, 960, 961, 5000}) {
    const std::vector<T> own = terms<T>(communicator.rank(), n);
    const std::vector<T> expected = sum_in_rank_order<T>(size, n);
    Buffer<T> values(own, stream);
    communicator.all_reduce_sum("sum", values.span(), stream);
    EXPECT_EQ(values.to_host(stream), expected) << n << " values";
    std::vector<T> on_host = own;
    communicator.sum<T>("sum", on_host);
    EXPECT_EQ(on_host, expected) << n << " values";

    Counts counts;  // the first rank's part is empty, the last gets the rest
    for (int rank = 0; rank < size; ++rank) counts.push_back(n * rank / (size * size));
    const std::int64_t before_last =
        std::accumulate(counts.begin(), counts.end() - 1, Counts::value_type{0});
    counts.back() = n - before_last;
    const std::int64_t begin = std::accumulate(counts.begin(), counts.begin() + communicator.rank(),
                                               Counts::value_type{0});
    const Buffer<T> whole(own, stream);
    Buffer<T> part(counts[communicator.rank()], stream);
    communicator.reduce_scatter_sum<T>("part", {whole.span(), counts}, part.span(), stream);
    EXPECT_EQ(part.to_host(stream),
              std::vector<T>(expected.begin() + begin, expected.begin() + begin + part.size()));
    EXPECT_EQ(whole.to_host(stream), own);
  }
}

/// Terms [begin, end) in a binary tree: the left part is the largest power of two.
float sum_in_tree(std::int64_t begin, std::int64_t end, std::int64_t index) {
  const std::int64_t size = end - begin;
  if (size == 1) return term<float>(static_cast<int>(begin), index);
  const auto left = static_cast<std::int64_t>(std::bit_ceil(std::uint64_t(size)) / 2);
  return sum_in_tree(begin, begin + left, index) + sum_in_tree(begin + left, end, index);
}

/// The same bits of `num_leaves` terms on any number of ranks, twice.
void check_tree_sums(Communicator& communicator, std::int64_t num_leaves, const Stream& stream) {
  TreeSum sum(num_leaves, communicator);
  for (const std::int64_t n : {0, 1, 7, 5000}) {
    std::vector<float> expected;
    for (std::int64_t i = 0; i < n; ++i) expected.push_back(sum_in_tree(0, num_leaves, i));
    Buffer<float> values(n, stream);
    const auto add_leaves = [&] {
      for (std::int64_t leaf = sum.leaves().begin; leaf < sum.leaves().end; ++leaf) {
        copy_from_host<float>(terms<float>(static_cast<int>(leaf), n), values.span(), stream);
        sum.add_leaf(values.span(), stream);
      }
    };
    add_leaves();
    sum.all_reduce("sum", values.span(), stream);
    EXPECT_EQ(values.to_host(stream), expected) << num_leaves << " leaves, " << n << " values";

    Counts counts;
    for (int rank = 0; rank < communicator.size(); ++rank) {
      counts.push_back(leaves_of_rank(n, rank, communicator.size()).size());
    }
    const LeafRange own = leaves_of_rank(n, communicator.rank(), communicator.size());
    Buffer<float> part(own.size(), stream);
    add_leaves();
    sum.reduce_scatter("part", values.span(), counts, part.span(), stream);
    EXPECT_EQ(part.to_host(stream),
              std::vector<float>(expected.begin() + own.begin, expected.begin() + own.end));
  }
}

}  // namespace

void check_random_exchanges(Communicator& communicator, int num_exchanges, const Stream& stream) {
  for (int seed = 0; seed < num_exchanges; ++seed) {
    check_random_exchange<float>(communicator, 3 * seed, stream);
    check_random_exchange<std::int64_t>(communicator, 3 * seed + 1, stream);
    check_random_exchange<std::uint8_t>(communicator, 3 * seed + 2, stream);
  }
}

TEST_P(CommunicatorConformance, AllToAllGivesRowsInRankOrder) {
  run([](Communicator& c, const Stream& stream) {
    // Rank r sends r + 1 rows {r, p} to every rank p.
    std::vector<float> send, expected;
    Counts expected_counts;
    for (int p = 0; p < c.size(); ++p) {
      for (int row = 0; row <= c.rank(); ++row)
        send.insert(send.end(), {1.0f * c.rank(), 1.0f * p});
      for (int row = 0; row <= p; ++row)
        expected.insert(expected.end(), {1.0f * p, 1.0f * c.rank()});
      expected_counts.push_back(p + 1);
    }
    const Buffer<float> sent(send, stream);
    Buffer<float> received(std::ssize(expected), stream);
    c.all_to_all<float>("rows", {sent.span(), Counts(c.size(), c.rank() + 1)},
                        {received.span(), expected_counts}, 2, stream);
    EXPECT_EQ(received.to_host(stream), expected);
  });
}

TEST_P(CommunicatorConformance, RanksMayBeEmpty) {
  run([](Communicator& c, const Stream& stream) {
    // Only the last rank has a row, for rank 0.
    const bool last = c.rank() == c.size() - 1;
    Counts send_counts(c.size(), 0), receive_counts(c.size(), 0);
    send_counts[0] = last ? 1 : 0;
    receive_counts.back() = c.rank() == 0 ? 1 : 0;
    const Buffer<float> sent(std::vector<float>(last ? 1 : 0, 7.0f), stream);
    Buffer<float> received(receive_counts.back(), stream);
    c.all_to_all<float>("one row", {sent.span(), send_counts}, {received.span(), receive_counts}, 1,
                        stream);
    EXPECT_EQ(received.to_host(stream), std::vector<float>(c.rank() == 0 ? 1 : 0, 7.0f));
    // Nobody has anything.
    const Counts none(c.size(), 0);
    c.all_to_all<float>("nothing", {{}, none}, {{}, none}, 4, stream);
    c.all_gather<float>("nothing", {}, {{}, none}, 4, stream);
    EXPECT_EQ(c.exchange<float>("nothing", {}, none).counts, none);
    EXPECT_EQ(c.gather<float>("nothing", {}).counts, none);
    // Rows of no columns still are rows.
    Counts of_each(c.size());
    std::iota(of_each.begin(), of_each.end(), 0);
    c.all_to_all<float>("no columns", {{}, Counts(c.size(), c.rank())}, {{}, of_each}, 0, stream);
  });
}

TEST_P(CommunicatorConformance, RandomExchangesAgreeWithANaiveLoop) {
  run([](Communicator& c, const Stream& stream) {
    check_random_exchanges(c, is_slow(stream) ? 10 : 30, stream);
  });
}

TEST_P(CommunicatorConformance, AllGatherGivesEveryRanksRows) {
  run([](Communicator& c, const Stream& stream) {
    for (const int scale : {1, 2000}) {  // few and many bytes; none on rank 0
      std::vector<std::int32_t> expected;
      Counts expected_counts;
      for (int p = 0; p < c.size(); ++p) {
        expected.insert(expected.end(), 2 * scale * p, p + 40);
        expected_counts.push_back(scale * p);
      }
      const std::vector<std::int32_t> mine(2 * scale * c.rank(), c.rank() + 40);
      const Buffer<std::int32_t> rows(mine, stream);
      Buffer<std::int32_t> gathered(std::ssize(expected), stream);
      c.all_gather<std::int32_t>("rows", rows.span(), {gathered.span(), expected_counts}, 2,
                                 stream);
      EXPECT_EQ(gathered.to_host(stream), expected);
      EXPECT_EQ(c.gather<std::int32_t>("rows", mine).values, expected);
    }
  });
}

TEST_P(CommunicatorConformance, SumsAreTakenInRankOrder) {
  run([](Communicator& c, const Stream& stream) {
    check_sums<float>(c, stream);
    check_sums<double>(c, stream);
    check_sums<std::int64_t>(c, stream);
    // By hand: 1 + 2 + ... + size.
    Buffer<float> value(std::vector<float>{c.rank() + 1.0f}, stream);
    c.all_reduce_sum("by hand", value.span(), stream);
    EXPECT_EQ(value.to_host(stream)[0], c.size() * (c.size() + 1) / 2.0f);
  });
}

TEST_P(CommunicatorConformance, TreeSumsHaveTheSameBitsOnAnyNumberOfRanks) {
  run([](Communicator& c, const Stream& stream) {
    for (std::int64_t num_leaves = c.size(); num_leaves <= 16;
         num_leaves += is_slow(stream) ? 3 : 1) {
      check_tree_sums(c, num_leaves, stream);
    }
    if (c.size() > 1) {
      EXPECT_THROW(TreeSum(c.size() - 1, c), Error);
    }
  });
}

TEST_P(CommunicatorConformance, BroadcastGivesTheRootsValues) {
  run([](Communicator& c, const Stream& stream) {
    for (int root = 0; root < c.size(); ++root) {
      for (const std::int64_t n : {0, 3, 3000}) {
        Buffer<double> values(std::vector<double>(n, c.rank()), stream);
        c.broadcast("values", values.span(), root, stream);
        EXPECT_EQ(values.to_host(stream), std::vector<double>(n, root));
      }
    }
  });
}

TEST_P(CommunicatorConformance, GathersValuesAndStrings) {
  run([](Communicator& c, const Stream&) {
    c.barrier("before");
    Counts values;
    std::vector<std::string> strings;
    for (int p = 0; p < c.size(); ++p) {
      values.push_back(-5 * p);
      strings.push_back(std::string(p, 'x'));  // empty on rank 0
    }
    EXPECT_EQ(c.gather_int64("values", -5 * c.rank()), values);
    EXPECT_EQ(c.gather_strings("strings", std::string(c.rank(), 'x')), strings);
  });
}

TEST_P(CommunicatorConformance, SplitGroupsAreIndependent) {
  run([](Communicator& c, const Stream& stream) {
    const auto group = c.split(c.rank() % 2 - 5);
    EXPECT_EQ(group->deadline(), c.deadline());
    EXPECT_EQ(group->rank(), c.rank() / 2);
    EXPECT_EQ(group->size(), (c.size() + 1 - c.rank() % 2) / 2);
    Counts members;
    for (int p = c.rank() % 2; p < c.size(); p += 2) members.push_back(p);
    // Odd ranks do more in their group than even ones in theirs.
    for (int i = 0; i <= c.rank() % 2; ++i) {
      EXPECT_EQ(group->gather_int64("members", c.rank()), members);
    }
    check_random_exchanges(*group, 3, stream);
    const auto alone = group->split(group->rank());
    EXPECT_EQ(alone->size(), 1);
    EXPECT_EQ(alone->gather_int64("alone", c.rank()), Counts{c.rank()});
    const auto again = c.split(c.rank() / 2);  // neighbours
    EXPECT_EQ(again->gather_int64("neighbours", c.rank()).front(), c.rank() / 2 * 2);
    EXPECT_EQ(c.gather_int64("all", 1), Counts(c.size(), 1));
  });
}

}  // namespace serrate
