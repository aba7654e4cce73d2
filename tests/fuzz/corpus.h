#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace serrate {

/// The files of a folder of tests/fuzz/corpus.
std::vector<std::string> read_corpus(const std::string& name);

/// Calls check(input) for changed seeds: a byte replaced, a piece left out, a piece repeated, a
/// piece of another seed put in. The same inputs every time.
void check_mutations(const std::vector<std::string>& corpus, int count,
                     const std::function<void(const std::string&)>& check);

/// The same for the beginnings of every seed, `step` bytes apart.
void check_beginnings(const std::vector<std::string>& corpus, std::size_t step,
                      const std::function<void(const std::string&)>& check);

}  // namespace serrate
