#include "serrate/embedding_table.h"

#include <gtest/gtest.h>

#include "serrate/error.h"

namespace serrate {
namespace {

TEST(SparseOptimizerTest, NamesGoBothWays) {
  EXPECT_EQ(to_string(SparseOptimizer::kSgd), "sgd");
  EXPECT_EQ(to_string(SparseOptimizer::kAdagrad), "adagrad");
  EXPECT_EQ(to_string(SparseOptimizer::kRowWiseAdagrad), "row_wise_adagrad");
  EXPECT_EQ(to_string(SparseOptimizer::kAdam), "adam");
  for (const char* name : {"sgd", "adagrad", "row_wise_adagrad", "adam"}) {
    EXPECT_EQ(to_string(sparse_optimizer_from_string(name)), name);
  }
}

TEST(SparseOptimizerTest, UnknownNameIsAUsageErrorThatListsTheNames) {
  try {
    sparse_optimizer_from_string("lamb");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_STREQ(error.what(),
                 "no optimizer \"lamb\" (there are: sgd, adagrad, row_wise_adagrad, adam)");
  }
}

}  // namespace
}  // namespace serrate
