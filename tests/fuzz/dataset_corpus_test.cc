// The seeds of the fuzzer, cut short and changed at random.
#include <gtest/gtest.h>

#include "tests/fuzz/check_dataset.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

TEST(DatasetCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus("dataset");
  ASSERT_GE(corpus.size(), 2u);
  check_beginnings(corpus, 61, check_dataset);
}

TEST(DatasetCorpus, Mutations) {
  check_mutations(read_corpus("dataset"), 500, check_dataset);
}

// One byte of a sound dataset is another one, under right checksums.
TEST(DatasetCorpus, EveryByte) {
  for (int at = 0; at < 8'000; at += 11) {
    for (const int value : {0, 0x80, 0xFF}) {
      check_dataset({'\1', static_cast<char>(at & 0xFF), static_cast<char>(at >> 8),
                     static_cast<char>(value)});
    }
  }
}

}  // namespace
}  // namespace serrate
