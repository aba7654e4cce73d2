#include <thread>

#include "serrate/error.h"
#include "tests/comm/conformance.h"

namespace serrate {
namespace {

using Counts = std::vector<std::int64_t>;

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
  std::function<void(Communicator&, const Stream&)> others, last;
  std::string others_call, last_call;  // in the message
};

void all_to_all_of(Communicator& c, const char* operation, std::int64_t width,
                   const Stream& stream) {
  const Buffer<float> send = Buffer<float>::zeros(width * c.size(), stream);
  Buffer<float> receive(width * c.size(), stream);
  const Counts counts(c.size(), 1);
  c.all_to_all<float>(operation, {send.span(), counts}, {receive.span(), counts}, width, stream);
}

void sum_of(Communicator& c, const char* operation, std::int64_t n, const Stream& stream) {
  Buffer<float> values = Buffer<float>::zeros(n, stream);
  c.all_reduce_sum(operation, values.span(), stream);
}

template <typename T>
std::function<void(Communicator&, const Stream&)> broadcast_from_root(int root) {
  return [root](Communicator& c, const Stream& stream) {
    Buffer<T> values = Buffer<T>::zeros(3, stream);
    c.broadcast("values", values.span(), root, stream);
  };
}

std::vector<Disagreement> disagreements() {
  using Call = std::function<void(Communicator&, const Stream&)>;
  const Call x = [](auto& c, auto& stream) { all_to_all_of(c, "x", 2, stream); };
  const auto sum = [](const char* operation, std::int64_t n) -> Call {
    return [=](auto& c, auto& stream) { sum_of(c, operation, n, stream); };
  };
  const auto host_sum = [](std::int64_t n) -> Call {
    return [=](auto& c, auto&) {
      std::vector<std::int64_t> values(n);
      c.template sum<std::int64_t>("h", values);
    };
  };
  const auto then_x = [x](const char* operation) -> Call {
    return [=](auto& c, auto& stream) {
      c.barrier(operation);
      x(c, stream);
    };
  };
  return {
      {"name", x, [](auto& c, auto& stream) { all_to_all_of(c, "y", 2, stream); },
       "all_to_all \"x\" #2", "all_to_all \"y\" #2"},
      {"operation", x, sum("x", 2), "all_to_all \"x\" #2", "all_reduce_sum \"x\" #2"},
      {"width", x, [](auto& c, auto& stream) { all_to_all_of(c, "x", 3, stream); },
       "rows of 8 bytes", "rows of 12 bytes"},
      {"type", broadcast_from_root<double>(0), broadcast_from_root<std::int64_t>(0), "double",
       "int64"},
      {"root", broadcast_from_root<float>(0), broadcast_from_root<float>(1), "root 0", "root 1"},
      {"extra call", x, then_x("extra"), "all_to_all \"x\" #2", "barrier \"extra\" #2"},
      {"skipped call", then_x("skipped"), x, "barrier \"skipped\" #2", "all_to_all \"x\" #2"},
      {"few values", sum("s", 7), sum("s", 8), "size 7", "size 8"},
      {"many values", sum("s", 7000), sum("s", 7001), "size 7000", "size 7001"},
      {"few and many", sum("s", 7), sum("s", 7001), "size 7", "size 7001"},
      {"words on the host", host_sum(2), host_sum(3), "sum \"h\" #2", "size 3"},
      {"host and payload", host_sum(2), sum("h", 2), "sum \"h\" #2", "all_reduce_sum \"h\" #2"},
  };
}

}  // namespace

TEST_P(CommunicatorConformance, CallsThatCannotBeRightAreRefused) {
  run([](Communicator& c, const Stream& stream) {
    Buffer<float> values = Buffer<float>::zeros(3, stream);
    const Counts three = [&] {
      Counts counts(c.size(), 0);
      counts.front() = 3;
      return counts;
    }();
    const auto all_to_all = [&](const Counts& send_counts, const Counts& receive_counts) {
      c.all_to_all<float>("refused", {values.span(), send_counts}, {values.span(), receive_counts},
                          1, stream);
    };
    for (const Counts& bad : {Counts(c.size(), 4), Counts(c.size(), -1)}) {
      expect_error([&] { all_to_all(bad, three); }, {"as many rows as its counts say"});
      expect_error([&] { all_to_all(three, bad); }, {"as many rows as its counts say"});
      expect_error([&] { c.exchange<float>("refused", std::vector<float>(3), bad); },
                   {"as many rows as its counts say"});
    }
    const Counts many(c.size() + 1, 0);
    expect_error([&] { all_to_all(many, three); }, {"a count for every rank"});
    expect_error([&] { all_to_all(three, many); }, {"a count for every rank"});
    expect_error(
        [&] {
          c.all_gather<float>("refused", values.span(), {{}, Counts(c.size(), 0)}, 1, stream);
        },
        {"as many rows as its counts say"});
    expect_error([&] { c.barrier("a name of more than 23 characters"); }, {"1 to 23 characters"});
    c.barrier("still in step");
  });
}

TEST_P(CommunicatorConformance, DisagreementIsAnErrorOnEveryRank) {
  if (size() == 1) return;  // one rank cannot disagree
  for (const Disagreement& disagreement : disagreements()) {
    SCOPED_TRACE(disagreement.name);
    run([&](Communicator& c, const Stream& stream) {
      c.barrier("in step");
      const bool last = c.rank() == c.size() - 1;
      expect_error([&] { (last ? disagreement.last : disagreement.others)(c, stream); },
                   {"ranks disagree", name_of(c.rank()), name_of(last ? 0 : c.size() - 1),
                    disagreement.others_call, disagreement.last_call, "#2"});
      expect_error([&] { c.barrier("later"); }, {"after an error", "ranks disagree"});
    });
  }
}

TEST_P(CommunicatorConformance, PartsThatDifferAreAnErrorOnEveryRank) {
  if (size() == 1) return;  // one rank cannot disagree
  run([](Communicator& c, const Stream& stream) {
    Counts counts(c.size(), 1);
    if (c.rank() == 0) {
      counts[0] = 2;
      counts[1] = 0;
    }
    Buffer<float> values = Buffer<float>::zeros(c.size(), stream);
    Buffer<float> part(counts[c.rank()], stream);
    expect_error(
        [&] { c.reduce_scatter_sum<float>("parts", {values.span(), counts}, part.span(), stream); },
        {"ranks disagree", "reduce_scatter_sum \"parts\" #1"});
  });
  run([](Communicator& c, const Stream& stream) {
    Counts counts(c.size(), 1);
    if (c.rank() == 0) counts[1] = 2;
    Buffer<float> all = Buffer<float>::zeros(c.size() + (c.rank() == 0 ? 1 : 0), stream);
    expect_error(
        [&] { c.all_gather<float>("parts", all.span().first(1), {all.span(), counts}, 1, stream); },
        {"ranks disagree", "all_gather \"parts\" #1"});
  });
}

// Rank 0 thinks that more will come from the last rank than that sends: it says so, and ends its
// job or its peers' waiting.
TEST_P(CommunicatorConformance, SizesThatWereNotAgreedAreAnError) {
  run(
      [](Communicator& c, const Stream& stream) {
        const Counts sent(c.size(), 2);
        Counts received = sent;
        if (c.rank() == 0) received.back() = 3;
        Buffer<float> send = Buffer<float>::zeros(2 * c.size(), stream);
        Buffer<float> receive(2 * c.size() + (c.rank() == 0 ? 1 : 0), stream);
        const auto call = [&] {
          c.all_to_all<float>("rows", {send.span(), sent}, {receive.span(), received}, 1, stream);
        };
        if (c.rank() > 0) {  // MPI: rank 0 would end the job; here its rows may have come before
          try {
            call();
          } catch (const Error&) {
          }
          return;
        }
        expect_error(call, {"rank 0: all_to_all \"rows\" #1: rank " + std::to_string(c.size() - 1) +
                            " sends 2 rows, 3 were agreed"});
      },
      std::chrono::seconds(5));
}

TEST_P(CommunicatorConformance, ErrorsInAGroupNameRanksOfTheWhole) {
  if (size() < 3) return;  // no group of two ranks that is not the whole
  run([](Communicator& c, const Stream&) {
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
      [](Communicator& c, const Stream&) {
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
