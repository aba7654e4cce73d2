// The seeds of the fuzzer, cut short and changed at random: a taste of it in every test run.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "tests/fuzz/check_planner_files.h"

namespace serrate {
namespace {

std::vector<std::string> read_corpus() {
  std::vector<std::string> texts;
  for (const auto& entry : std::filesystem::directory_iterator(SERRATE_TEST_CORPUS)) {
    std::ifstream file(entry.path(), std::ios::binary);
    texts.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return texts;
}

TEST(PlannerFilesCorpus, SeedsAndTheirBeginnings) {
  const auto corpus = read_corpus();
  ASSERT_GE(corpus.size(), 10u);
  for (const std::string& text : corpus) {
    for (std::size_t length = 0; length <= text.size(); ++length) {
      check_planner_files(text.substr(0, length));
    }
  }
}

// A byte replaced, a piece left out, a piece repeated, a piece of another seed put in.
TEST(PlannerFilesCorpus, Mutations) {
  auto corpus = read_corpus();
  std::ranges::sort(corpus);
  std::mt19937_64 random(7);
  const auto below = [&](std::size_t end) { return end == 0 ? 0 : random() % end; };
  for (int i = 0; i < 20'000; ++i) {
    std::string text = corpus[below(corpus.size())];
    const std::string& other = corpus[below(corpus.size())];
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
      const std::size_t at = below(text.size()), length = below(12);
      switch (below(4)) {
        case 0:
          if (!text.empty()) text[at] = static_cast<char>(below(256));
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.insert(at, text.substr(at, length));
          break;
        default:
          text.insert(at, other.substr(below(other.size()), length));
      }
    }
    check_planner_files(text);
  }
}

}  // namespace
}  // namespace serrate
