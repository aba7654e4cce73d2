#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/thread_communicator.h"
#if SERRATE_WITH_MPI
#include "serrate/mpi_communicator.h"
#endif

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

inline double benchmark_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline double benchmark_median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

/// Runs `body` on the ranks of mpirun when it started this program, else on `ranks` threads.
inline int run_benchmark_ranks(int ranks, const std::function<void(Communicator&)>& body) {
  constexpr std::chrono::minutes kDeadline{2};
#if SERRATE_WITH_MPI
  if (launched_by_mpirun()) {
    try {
      MpiRuntime runtime;
      const auto communicator = make_mpi_communicator(kDeadline);
      body(*communicator);
      return 0;
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      abort_job(1);
    }
  }
#endif
  run_thread_ranks(ranks, kDeadline, body);
  return 0;
}

}  // namespace serrate
