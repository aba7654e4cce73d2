#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

namespace serrate {

/// `--name value` and `--flag` arguments of a benchmark. Errors end the program with exit code 2.
class BenchmarkArguments {
 public:
  BenchmarkArguments(int argc, char** argv) : words_(argv + 1, argv + argc) {}

  std::string text(const std::string& name, const std::string& preset) {
    const auto found = std::find(words_.begin(), words_.end(), name);
    if (found == words_.end()) return preset;
    if (found + 1 == words_.end()) fail(name + " needs a value");
    const std::string value = *(found + 1);
    words_.erase(found, found + 2);
    return value;
  }
  std::int64_t integer(const std::string& name, std::int64_t preset) {
    const std::string value = text(name, "");
    if (value.empty()) return preset;
    char* end = nullptr;
    const std::int64_t number = std::strtoll(value.c_str(), &end, 10);
    if (*end || number < 1) fail(name + " needs a whole number above 0");
    return number;
  }
  bool flag(const std::string& name) {
    const auto found = std::find(words_.begin(), words_.end(), name);
    if (found == words_.end()) return false;
    words_.erase(found);
    return true;
  }
  /// Leaves to main, for Google Benchmark, what was not asked for.
  void pass_on(int& argc, char** argv) {
    argc = 1;
    for (std::string& word : words_) argv[argc++] = word.data();
  }
  /// Called when all arguments have been asked for: what is left is a mistake.
  void finish() const {
    if (!words_.empty()) fail("unknown argument " + words_.front());
  }

 private:
  [[noreturn]] static void fail(const std::string& problem) {
    fmt::print(stderr, "{}\n", problem);
    std::exit(2);
  }
  std::vector<std::string> words_;
};

}  // namespace serrate
