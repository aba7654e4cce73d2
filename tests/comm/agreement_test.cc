#include "comm/agreement.h"

#include <gtest/gtest.h>

#include <atomic>

#include "serrate/error.h"
#include "tests/support/run_ranks.h"

namespace serrate {
namespace {

/// What every one of three ranks is told, of which the last has `other`.
std::string error_of(const std::string& what, const std::string& usual, const std::string& other) {
  std::string message;
  std::atomic<int> told = 0;
  run_ranks(3, [&](Communicator& c) {
    try {
      require_agreement(c, what, c.rank() == 2 ? other : usual);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      ++told;
      if (c.rank() == 0) message = error.what();
    }
  });
  EXPECT_TRUE(told == 0 || told == 3) << told;
  return message;
}

TEST(Agreement, NamesTheFieldThatDiffers) {
  const auto begins = [](const std::string& text, const std::string& start) {
    return text.rfind(start, 0) == 0;
  };
  std::string error =
      error_of("options", R"({"a": 1, "b": {"c": [1, 2]}})", R"({"a": 1, "b": {"c": [1, 3]}})");
  EXPECT_TRUE(begins(error, "rank 2 differs from rank 0 in options.b.c[1]: 3 there, 2 on rank 0"))
      << error;
  error = error_of("", R"({"a": 1})", R"({"a": 1, "z": "x"})");
  EXPECT_TRUE(begins(error, "rank 2 differs from rank 0 in z: \"x\" there, nothing on rank 0"))
      << error;
  error = error_of("the data", R"("one")", R"("other")");
  EXPECT_TRUE(
      begins(error, "rank 2 differs from rank 0 in the data: \"other\" there, \"one\" on rank 0"))
      << error;
}

TEST(Agreement, IsSilentWhenAllAgree) {
  EXPECT_EQ(error_of("options", R"({"a": 1})", R"({"a": 1})"), "");
  EXPECT_EQ(error_of("options", R"({"a": 1, "b": 2})", R"({"b": 2, "a": 1})"), "");
}

}  // namespace
}  // namespace serrate
