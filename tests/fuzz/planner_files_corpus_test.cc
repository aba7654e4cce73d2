// The seeds of the fuzzer, cut short and changed at random: a taste of it in every test run.
#include <gtest/gtest.h>

#include "tests/fuzz/check_planner_files.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

TEST(PlannerFilesCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus("planner_files");
  ASSERT_GE(corpus.size(), 10u);
  check_beginnings(corpus, 1, check_planner_files);
}

TEST(PlannerFilesCorpus, Mutations) {
  check_mutations(read_corpus("planner_files"), 20'000, check_planner_files);
}

}  // namespace
}  // namespace serrate
