#include "tests/fuzz/corpus.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

namespace serrate {

std::vector<std::string> read_corpus(const std::string& name) {
  std::vector<std::string> seeds;
  for (const auto& entry : std::filesystem::directory_iterator(SERRATE_TEST_CORPUS "/" + name)) {
    std::ifstream file(entry.path(), std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::ranges::sort(seeds);
  return seeds;
}

void check_mutations(const std::vector<std::string>& corpus, int count,
                     const std::function<void(const std::string&)>& check) {
  std::mt19937_64 random(7);
  const auto below = [&](std::size_t end) { return end == 0 ? 0 : random() % end; };
  for (int i = 0; i < count; ++i) {
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
    check(text);
  }
}

void check_beginnings(const std::vector<std::string>& corpus, std::size_t step,
                      const std::function<void(const std::string&)>& check) {
  for (const std::string& text : corpus) {
    for (std::size_t length = 0; length <= text.size(); length += step) {
      check(text.substr(0, length));
    }
  }
}

}  // namespace serrate
