// The seeds of the fuzzer, cut short and changed at random.
#include <gtest/gtest.h>

#include "tests/fuzz/check_config.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

TEST(ConfigCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus("config");
  ASSERT_GE(corpus.size(), 4u);
  check_beginnings(corpus, 5, check_config);
}

TEST(ConfigCorpus, Mutations) {
  check_mutations(read_corpus("config"), 3'000, check_config);
}

}  // namespace
}  // namespace serrate
