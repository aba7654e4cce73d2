// openmp_threads.cc does what OpenMP says. With --race the program has a race that ThreadSanitizer
// has to find: ctest expects it to fail.
#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <cstdint>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Counts = std::vector<std::atomic<int>>;

testing::AssertionResult are_all(const Counts& counts, int expected) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] != expected) {
      return testing::AssertionFailure() << counts[i] << " times " << i << ", not " << expected;
    }
  }
  return testing::AssertionSuccess();
}

TEST(OpenmpThreads, DynamicLoopsRunEveryIterationOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    for (const std::int64_t size : {0, 1, 2, 7, 100}) {
      Counts up(size), by_three(3 * size), down(size), of_unsigned(size), of_pairs(2 * size);
#pragma omp parallel num_threads(threads)
      {
#pragma omp for schedule(dynamic) nowait
        for (std::int64_t i = 0; i < size; ++i) ++up[i];
#pragma omp for schedule(dynamic, 4) nowait
        for (std::int64_t i = 0; i < 3 * size; i += 3) {
          for (std::int64_t k = i; k < i + 3; ++k) ++by_three[k];
        }
#pragma omp for schedule(dynamic, 3)
        for (std::int64_t i = size - 1; i >= 0; --i) ++down[i];
#pragma omp for schedule(dynamic, 2) nowait
        for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) ++of_unsigned[i];
#pragma omp for collapse(2) schedule(dynamic)
        for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
          for (std::size_t k = 0; k < 2; ++k) ++of_pairs[2 * i + k];
        }
      }
      EXPECT_TRUE(are_all(up, 1)) << size << " on " << threads;
      EXPECT_TRUE(are_all(by_three, 1)) << size << " on " << threads;
      EXPECT_TRUE(are_all(down, 1)) << size << " on " << threads;
      EXPECT_TRUE(are_all(of_unsigned, 1)) << size << " on " << threads;
      EXPECT_TRUE(are_all(of_pairs, 1)) << size << " on " << threads;
    }
  }
}

TEST(OpenmpThreads, BarriersOrderAndOneThreadRunsASingle) {
  constexpr int kThreads = 4;
  std::vector<int> of_thread(kThreads);
  std::atomic<int> singles = 0, wrong = 0;
#pragma omp parallel num_threads(kThreads)
  {
    of_thread[omp_get_thread_num()] = omp_get_num_threads();
#pragma omp barrier
    for (const int value : of_thread) wrong += value != kThreads;
    for (int k = 0; k < 10; ++k) {
#pragma omp single
      ++singles;
    }
#pragma omp parallel num_threads(kThreads)  // nested: serial
    wrong += omp_get_num_threads() != 1 || omp_get_thread_num() != 0;
  }
  EXPECT_EQ(singles, 10);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(omp_get_num_threads(), 1);
}

TEST(OpenmpThreads, EveryRankHasATeamOfItsOwn) {
  std::atomic<int> sum = 0;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 3; ++rank) {
    ranks.emplace_back([&sum, rank] {
      for (int k = 0; k < 20; ++k) {
#pragma omp parallel num_threads(rank + 1)
        sum += omp_get_num_threads();
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(sum, 20 * (1 + 4 + 9));
}

// A loop without a barrier orders nothing, whichever thread takes its iterations.
int race() {
  constexpr int kThreads = 2;
  std::vector<int> of_thread(kThreads);
  std::atomic<int> sum = 0;
#pragma omp parallel num_threads(kThreads)
  {
    const int thread = omp_get_thread_num();
    of_thread[thread] = 1;
    std::int64_t taken = 0;
#pragma omp for schedule(dynamic) nowait
    for (std::int64_t i = 0; i < 10; ++i) ++taken;
    const int other = of_thread[1 - thread];
    sum.fetch_add(static_cast<int>(taken) + other, std::memory_order_relaxed);
  }
  return sum == 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && std::string_view(arguments[1]) == "--race") return race();
  testing::InitGoogleTest(&count, arguments);
  return RUN_ALL_TESTS();
}
