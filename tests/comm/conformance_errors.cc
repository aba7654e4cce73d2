#include <thread>

#include "serrate/error.h"
#include "tests/comm/conformance.h"

namespace serrate {
namespace {

using Counts = std::vector<std::int64_t>;

const Stream kHost;

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

}  // namespace

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
