#pragma once

#include <cstdint>
#include <string>

namespace serrate {

struct GenerateOptions {
  std::string output;
  std::int64_t users = 0;
  std::int64_t items = 0;
  std::int64_t events = 0;  // at least one a user
  std::uint64_t seed = 0;
};

/// Writes a made-up dataset, the same for the same options. Popularity of items follows Zipf's law,
/// lengths of histories are log-normal. The next item is most often one of a few followers of a
/// recent item: half the time of the last one, a quarter of the one before, and so on, so that a
/// Markov chain sees half of the structure; else an item of a cluster the user likes, one the user
/// had before, or any. Feature `category` is the item's cluster; events of one basket share their
/// timestamp. Throws Error (usage) for sizes that do not fit each other.
void generate(const GenerateOptions& options);

}  // namespace serrate
