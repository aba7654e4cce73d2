#include "tests/comm/conformance.h"

#include <initializer_list>
#include <numeric>
#include <thread>

#include "serrate/error.h"

namespace serrate {
namespace {

using Counts = std::vector<std::int64_t>;

const Stream kHost;

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
void check_random_exchange(Communicator& communicator, std::uint64_t seed) {
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
  Buffer<T> receive;
  Counts receive_counts;
  communicator.all_to_all<T>("random", send, send_counts, width, receive, receive_counts, kHost);
  EXPECT_EQ(receive_counts, expected_counts) << "seed " << seed;
  EXPECT_EQ(receive.to_host(kHost), expected) << "seed " << seed;
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
  std::vector<T> values;
  for (std::int64_t i = 0; i < size; ++i) values.push_back(term<T>(rank, i));
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
void check_sums(Communicator& communicator) {
  const int size = communicator.size();
  for (const std::int64_t n : {0, 1, 2, 7, 400, 5000}) {
    std::vector<T> values = terms<T>(communicator.rank(), n);
    communicator.all_reduce_sum<T>("sum", values, kHost);
    const std::vector<T> expected = sum_in_rank_order<T>(size, n);
    EXPECT_EQ(values, expected) << n << " values";

    Counts counts;  // the first rank's part is empty, the last gets the rest
    for (int rank = 0; rank < size; ++rank) counts.push_back(n * rank / (size * size));
    const std::int64_t before_last =
        std::accumulate(counts.begin(), counts.end() - 1, Counts::value_type{0});
    counts.back() = n - before_last;
    const std::int64_t begin = std::accumulate(counts.begin(), counts.begin() + communicator.rank(),
                                               Counts::value_type{0});
    std::vector<T> part(counts[communicator.rank()]);
    communicator.reduce_scatter_sum<T>("part", terms<T>(communicator.rank(), n), counts, part,
                                       kHost);
    EXPECT_EQ(part, std::vector<T>(expected.begin() + begin,
                                   expected.begin() + begin + std::ssize(part)));
  }
}

/// The call fails with an Error whose message has all these parts.
void expect_error(const std::function<void()>& call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "no error, but one with \"" << parts.front() << "\" was expected";
  } catch (const Error& error) {
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
          << "no \"" << part << "\" in: " << error.what();
    }
  }
}

std::string name_of(int rank) {
  return "rank " + std::to_string(rank);
}

}  // namespace

void check_random_exchanges(Communicator& communicator, int num_exchanges) {
  for (int seed = 0; seed < num_exchanges; ++seed) {
    check_random_exchange<float>(communicator, 3 * seed);
    check_random_exchange<std::int64_t>(communicator, 3 * seed + 1);
    check_random_exchange<std::uint8_t>(communicator, 3 * seed + 2);
  }
}

TEST_P(CommunicatorConformance, AllToAllGivesRowsInRankOrder) {
  run([](Communicator& c) {
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
    Buffer<float> receive;
    Counts counts;
    c.all_to_all<float>("rows", send, Counts(c.size(), c.rank() + 1), 2, receive, counts, kHost);
    EXPECT_EQ(counts, expected_counts);
    EXPECT_EQ(receive.to_host(kHost), expected);
  });
}

TEST_P(CommunicatorConformance, RanksMayBeEmpty) {
  run([](Communicator& c) {
    Buffer<float> receive({std::vector<float>{1, 2, 3}}, kHost);
    Counts counts;
    // Only the last rank has a row, for rank 0.
    const bool last = c.rank() == c.size() - 1;
    Counts send_counts(c.size(), 0);
    send_counts[0] = last ? 1 : 0;
    c.all_to_all<float>("one row", std::vector<float>(last ? 1 : 0, 7.0f), send_counts, 1, receive,
                        counts, kHost);
    Counts expected_counts(c.size(), 0);
    expected_counts.back() = c.rank() == 0 ? 1 : 0;
    EXPECT_EQ(counts, expected_counts);
    EXPECT_EQ(receive.to_host(kHost), std::vector<float>(c.rank() == 0 ? 1 : 0, 7.0f));
    // Nobody has anything.
    c.all_to_all<float>("nothing", {}, Counts(c.size(), 0), 4, receive, counts, kHost);
    EXPECT_EQ(counts, Counts(c.size(), 0));
    EXPECT_EQ(receive.size(), 0);
    c.all_gather<float>("nothing", {}, 4, receive, counts, kHost);
    EXPECT_EQ(counts, Counts(c.size(), 0));
    // Rows of no columns still are rows.
    c.all_to_all<float>("no columns", {}, Counts(c.size(), c.rank()), 0, receive, counts, kHost);
    EXPECT_EQ(counts.back(), c.size() - 1);
    EXPECT_EQ(receive.size(), 0);
  });
}

TEST_P(CommunicatorConformance, RandomExchangesAgreeWithANaiveLoop) {
  run([](Communicator& c) { check_random_exchanges(c, 30); });
}

TEST_P(CommunicatorConformance, AllGatherGivesEveryRanksRows) {
  run([](Communicator& c) {
    for (const int scale : {1, 2000}) {  // few and many bytes; none on rank 0
      std::vector<std::int32_t> expected;
      Counts expected_counts;
      for (int p = 0; p < c.size(); ++p) {
        expected.insert(expected.end(), 2 * scale * p, p + 40);
        expected_counts.push_back(scale * p);
      }
      Buffer<std::int32_t> gathered;
      Counts counts;
      const std::vector<std::int32_t> mine(2 * scale * c.rank(), c.rank() + 40);
      c.all_gather<std::int32_t>("rows", mine, 2, gathered, counts, kHost);
      EXPECT_EQ(counts, expected_counts);
      EXPECT_EQ(gathered.to_host(kHost), expected);
    }
  });
}

TEST_P(CommunicatorConformance, SumsAreTakenInRankOrder) {
  run([](Communicator& c) {
    check_sums<float>(c);
    check_sums<double>(c);
    check_sums<std::int64_t>(c);
    // By hand: 1 + 2 + ... + size.
    std::vector<float> value{c.rank() + 1.0f};
    c.all_reduce_sum<float>("by hand", value, kHost);
    EXPECT_EQ(value[0], c.size() * (c.size() + 1) / 2.0f);
  });
}

TEST_P(CommunicatorConformance, BroadcastGivesTheRootsValues) {
  run([](Communicator& c) {
    for (int root = 0; root < c.size(); ++root) {
      for (const std::int64_t n : {0, 3, 3000}) {
        std::vector<double> values(n, c.rank());
        c.broadcast<double>("values", values, root, kHost);
        EXPECT_EQ(values, std::vector<double>(n, root));
      }
    }
  });
}

TEST_P(CommunicatorConformance, GathersValuesAndStrings) {
  run([](Communicator& c) {
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
  run([](Communicator& c) {
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
    check_random_exchanges(*group, 3);
    const auto alone = group->split(group->rank());
    EXPECT_EQ(alone->size(), 1);
    EXPECT_EQ(alone->gather_int64("alone", c.rank()), Counts{c.rank()});
    const auto again = c.split(c.rank() / 2);  // neighbours
    EXPECT_EQ(again->gather_int64("neighbours", c.rank()).front(), c.rank() / 2 * 2);
    EXPECT_EQ(c.gather_int64("all", 1), Counts(c.size(), 1));
  });
}

TEST_P(CommunicatorConformance, CallsThatCannotBeRightAreRefused) {
  run([](Communicator& c) {
    Buffer<float> receive;
    Counts counts;
    const std::vector<float> values(3);
    const auto all_to_all = [&](Counts send_counts) {
      c.all_to_all<float>("refused", values, send_counts, 1, receive, counts, kHost);
    };
    expect_error([&] { all_to_all(Counts(c.size() + 1, 0)); }, {"a count for every rank"});
    expect_error([&] { all_to_all(Counts(c.size(), 4)); }, {"as many rows as its counts say"});
    expect_error([&] { all_to_all(Counts(c.size(), -1)); }, {"as many rows as its counts say"});
    expect_error([&] { c.all_gather<float>("refused", values, 2, receive, counts, kHost); },
                 {"whole rows"});
    expect_error([&] { c.barrier("a name of more than 23 characters"); }, {"1 to 23 characters"});
    c.barrier("still in step");
  });
}

/// Ranks that disagree: the last one does what `last` says, the others what `others` says.
struct Disagreement {
  std::string name;
  std::function<void(Communicator&)> others, last;
  std::string others_call, last_call;  // in the message
};

void all_to_all_of(Communicator& c, const char* operation, std::int64_t width) {
  Buffer<float> receive;
  Counts counts;
  const std::vector<float> send(width * c.size());
  c.all_to_all<float>(operation, send, Counts(c.size(), 1), width, receive, counts, kHost);
}

void sum_of(Communicator& c, const char* operation, std::int64_t n) {
  std::vector<float> values(n, 1.0f);
  c.all_reduce_sum<float>(operation, values, kHost);
}

void broadcast_from(Communicator& c, int root) {
  std::vector<float> values(3);
  c.broadcast<float>("values", values, root, kHost);
}

std::vector<Disagreement> disagreements() {
  const auto x = [](Communicator& c) { all_to_all_of(c, "x", 2); };
  return {
      {"name", x, [](auto& c) { all_to_all_of(c, "y", 2); }, "all_to_all \"x\" #2",
       "all_to_all \"y\" #2"},
      {"operation", x, [](auto& c) { sum_of(c, "x", 2); }, "all_to_all \"x\" #2",
       "all_reduce_sum \"x\" #2"},
      {"width", x, [](auto& c) { all_to_all_of(c, "x", 3); }, "rows of 8 bytes",
       "rows of 12 bytes"},
      {"type",
       [](auto& c) {
         std::vector<double> v(3);
         c.template broadcast<double>("v", v, 0, kHost);
       },
       [](auto& c) {
         std::vector<std::int64_t> v(3);
         c.template broadcast<std::int64_t>("v", v, 0, kHost);
       },
       "double", "int64"},
      {"root", [](auto& c) { broadcast_from(c, 0); }, [](auto& c) { broadcast_from(c, 1); },
       "root 0", "root 1"},
      {"extra call", x,
       [x](auto& c) {
         c.barrier("extra");
         x(c);
       },
       "all_to_all \"x\" #2", "barrier \"extra\" #2"},
      {"skipped call",
       [x](auto& c) {
         c.barrier("skipped");
         x(c);
       },
       x, "barrier \"skipped\" #2", "all_to_all \"x\" #2"},
      {"few values", [](auto& c) { sum_of(c, "s", 7); }, [](auto& c) { sum_of(c, "s", 8); },
       "size 7", "size 8"},
      {"many values", [](auto& c) { sum_of(c, "s", 7000); }, [](auto& c) { sum_of(c, "s", 7001); },
       "size 7000", "size 7001"},
      {"few and many", [](auto& c) { sum_of(c, "s", 7); }, [](auto& c) { sum_of(c, "s", 7001); },
       "size 7", "size 7001"},
  };
}

TEST_P(CommunicatorConformance, DisagreementIsAnErrorOnEveryRank) {
  if (size() == 1) return;  // one rank cannot disagree
  for (const Disagreement& disagreement : disagreements()) {
    SCOPED_TRACE(disagreement.name);
    run([&](Communicator& c) {
      c.barrier("in step");
      const bool last = c.rank() == c.size() - 1;
      expect_error([&] { (last ? disagreement.last : disagreement.others)(c); },
                   {"ranks disagree", name_of(c.rank()), name_of(last ? 0 : c.size() - 1),
                    disagreement.others_call, disagreement.last_call, "#2"});
      expect_error([&] { c.barrier("later"); }, {"after an error", "ranks disagree"});
    });
  }
}

TEST_P(CommunicatorConformance, PartsThatDifferAreAnErrorOnEveryRank) {
  if (size() == 1) return;  // one rank cannot disagree
  run([](Communicator& c) {
    Counts counts(c.size(), 1);
    if (c.rank() == 0) {
      counts[0] = 2;
      counts[1] = 0;
    }
    const std::vector<float> values(c.size());
    std::vector<float> part(counts[c.rank()]);
    expect_error([&] { c.reduce_scatter_sum<float>("parts", values, counts, part, kHost); },
                 {"ranks disagree", "reduce_scatter_sum \"parts\" #1"});
  });
}

TEST_P(CommunicatorConformance, ErrorsInAGroupNameRanksOfTheWhole) {
  if (size() < 3) return;  // no group of two ranks that is not the whole
  run([](Communicator& c) {
    const auto group = c.split(c.rank() == 0 ? 0 : 1);
    if (c.rank() == 0) return;
    const bool last = c.rank() == c.size() - 1;
    expect_error([&] { group->barrier(last ? "x" : "y"); },
                 {name_of(c.rank()), name_of(last ? 1 : c.size() - 1)});
  });
}

TEST_P(CommunicatorConformance, ARankThatDoesNotComeIsNamedAtTheDeadline) {
  if (size() == 1) return;  // nobody to wait for
  using namespace std::chrono_literals;
  run(
      [](Communicator& c) {
        c.barrier("in step");
        const int last = c.size() - 1;
        if (c.rank() == last) {
          std::this_thread::sleep_for(1s);
          return;
        }
        try {
          c.barrier("late");
          ADD_FAILURE() << "no error at the deadline";
        } catch (const Error& error) {
          EXPECT_EQ(error.exit_code(), 75);
          EXPECT_NE(std::string(error.what())
                        .find("barrier \"late\" #2: waited 250 ms for " + name_of(last)),
                    std::string::npos)
              << error.what();
        }
      },
      250ms);
}

}  // namespace serrate
