// The seeds of the fuzzers, cut short and changed at random.
#include <gtest/gtest.h>

#include "tests/fuzz/check_delimited_text.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

TEST(DelimitedTextCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus("delimited_text");
  ASSERT_GE(corpus.size(), 8u);
  check_beginnings(corpus, 1, check_delimited_text);
}

TEST(DelimitedTextCorpus, Mutations) {
  check_mutations(read_corpus("delimited_text"), 3'000, check_delimited_text);
}

TEST(TimeCorpus, SeedsBeginningsAndMutations) {
  const auto corpus = read_corpus("time");
  ASSERT_GE(corpus.size(), 8u);
  check_beginnings(corpus, 1, check_time);
  check_mutations(corpus, 50'000, check_time);
}

}  // namespace
}  // namespace serrate
