// The seeds of the fuzzer, changed at random, and every byte of a sound file.
#include <gtest/gtest.h>

#include "src/io/text_file.h"
#include "tests/fuzz/check_rank_file.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

// Or what the fuzzer makes of them is refused at once.
TEST(RankFileCorpus, SoundSeedsAreLoaded) {
  for (const char* name : {"content", "nothing"}) {
    EXPECT_TRUE(
        check_rank_file(read_text_file(SERRATE_TEST_CORPUS "/rank_file/" + std::string(name))))
        << name;
  }
}

TEST(RankFileCorpus, Mutations) {
  const auto corpus = read_corpus("rank_file");
  ASSERT_GE(corpus.size(), 2u);
  check_mutations(corpus, 500, check_rank_file);
}

TEST(RankFileCorpus, EveryByte) {
  for (int at = 0; at < 8'000; at += 11) {
    for (const int value : {0, 1, 0x7F, 0x80, 0xFF}) {
      check_rank_file({'\1', static_cast<char>(at & 0xFF), static_cast<char>(at >> 8),
                       static_cast<char>(value)});
    }
  }
}

}  // namespace
}  // namespace serrate
