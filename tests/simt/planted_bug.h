#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/simt/findings.h"

namespace simt {

/// Device memory of a test.
template <typename T>
class Array {
 public:
  explicit Array(std::size_t size) : size_(size) {
    cudaMalloc(reinterpret_cast<void**>(&data_), size * sizeof(T));
  }
  explicit Array(const std::vector<T>& values) : Array(values.size()) {
    cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  ~Array() { cudaFree(data_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  T* data() const { return data_; }
  std::vector<T> host() const {
    std::vector<T> values(size_);
    cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost);
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_;
};

template <typename... Parameters, typename... Arguments>
cudaError_t run(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
                cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

/// The findings up to now, of all that was queued.
inline std::vector<Finding> found() {
  cudaDeviceSynchronize();
  return take_findings();
}

/// Nothing is wrong with the twin of a planted bug.
inline void expect_nothing_found() {
  for (const Finding& finding : found()) {
    ADD_FAILURE() << "false alarm: " << to_string(finding.kind) << ": " << finding.text;
  }
}

/// The lines of a file of tests/simt that say "bug: name".
inline std::set<int> lines_of_bug(const std::string& file, const std::string& name) {
  std::ifstream in(std::string(SERRATE_SIMT_TESTS) + "/" + file);
  std::set<int> lines;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    if (line.ends_with("bug: " + name)) lines.insert(number);
  }
  return lines;
}

/// What a finding has to say: its kind, the kernel, a thread among `threads`, and a line of `file`
/// that is marked "bug: name".
struct Planted {
  Kind kind;
  std::string kernel;
  std::vector<unsigned> threads;  // threadIdx.x
  std::string file, name;
};

inline void expect_found(const Planted& bug) {
  const std::vector<Finding> findings = found();
  ASSERT_FALSE(findings.empty()) << "nothing was found";
  const std::set<int> lines = lines_of_bug(bug.file, bug.name);
  ASSERT_FALSE(lines.empty()) << "no line says \"bug: " << bug.name << "\"";
  for (const Finding& finding : findings) {
    SCOPED_TRACE(finding.text);
    EXPECT_EQ(to_string(finding.kind), std::string(to_string(bug.kind)));
    EXPECT_EQ(finding.kernel, bug.kernel);
    EXPECT_TRUE(std::count(bug.threads.begin(), bug.threads.end(), finding.thread.x));
    EXPECT_EQ(finding.place.file, bug.file);
    EXPECT_TRUE(lines.contains(finding.place.line)) << "line " << finding.place.line;
  }
}

/// Among the findings is one of that kind at a line of `file` that is marked "bug: name".
inline void expect_among(const std::vector<Finding>& findings, Kind kind, const std::string& file,
                         const std::string& name) {
  const std::set<int> lines = lines_of_bug(file, name);
  ASSERT_FALSE(lines.empty()) << name;
  bool there = false;
  std::string all;
  for (const Finding& finding : findings) {
    there = there || (finding.kind == kind && finding.place.file == file &&
                      lines.contains(finding.place.line));
    all += std::string(to_string(finding.kind)) + ": " + finding.text + "\n";
  }
  EXPECT_TRUE(there) << "found instead: " << all;
}

/// A finding of the host's doing: its kind and a part of its text.
inline void expect_found_on_host(Kind kind, const std::string& text) {
  const std::vector<Finding> findings = found();
  ASSERT_FALSE(findings.empty()) << "nothing was found";
  for (const Finding& finding : findings) {
    EXPECT_EQ(to_string(finding.kind), std::string(to_string(kind))) << finding.text;
    EXPECT_NE(finding.text.find(text), std::string::npos) << finding.text;
  }
}

/// Threads [begin, end).
inline std::vector<unsigned> from_to(unsigned begin, unsigned end) {
  std::vector<unsigned> threads;
  for (unsigned i = begin; i < end; ++i) threads.push_back(i);
  return threads;
}
inline std::vector<unsigned> any_of(unsigned threads) {
  return from_to(0, threads);
}

}  // namespace simt
