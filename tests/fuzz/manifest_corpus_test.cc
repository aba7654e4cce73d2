// The seeds of the fuzzer, cut short and changed at random.
#include <gtest/gtest.h>

#include "tests/fuzz/check_manifest.h"
#include "tests/fuzz/corpus.h"

namespace serrate {
namespace {

TEST(ManifestCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus("manifest");
  ASSERT_GE(corpus.size(), 3u);
  check_beginnings(corpus, 3, check_manifest);
}

TEST(ManifestCorpus, Mutations) {
  check_mutations(read_corpus("manifest"), 5'000, check_manifest);
}

}  // namespace
}  // namespace serrate
