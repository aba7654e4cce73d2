#include "src/cli/options.h"

#include <gtest/gtest.h>

#include <fstream>

#include "serrate/error.h"

namespace serrate::cli {
namespace {

enum class Fruit { kApple, kPear };

std::string to_string(Fruit fruit) {
  return fruit == Fruit::kApple ? "apple" : "pear";
}

Fruit fruit_from_string(const std::string& name) {
  if (name == "apple") return Fruit::kApple;
  if (name == "pear") return Fruit::kPear;
  throw usage_error("no such fruit");
}

struct Values {
  std::string data;
  std::int64_t steps = 10;
  float rate = 0.5f;
  bool seen = false;
  std::vector<std::string> features;
  std::vector<std::int64_t> cutoffs{10};
  std::chrono::milliseconds timeout{1000};
  Fruit fruit = Fruit::kPear;
};

class OptionsTest : public ::testing::Test {
 protected:
  OptionsTest() {
    options_.add("data", values_.data, "", Options::Need::kRequired);
    options_.add("steps", values_.steps, "", 1);
    options_.add("rate", values_.rate, "");
    options_.add("seen", values_.seen, "");
    options_.add("features", values_.features, "");
    options_.add("k", values_.cutoffs, "");
    options_.add("timeout", values_.timeout, "");
    options_.add("fruit", values_.fruit, "", "apple|pear", fruit_from_string);
  }

  std::string error_of(const Arguments& arguments) {
    try {
      options_.parse(arguments);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      return error.what();
    }
    return "no error";
  }

  Values values_;
  Options options_{"try", "Tries options."};
};

TEST_F(OptionsTest, SetsWhatIsGivenAndKeepsDefaults) {
  ASSERT_TRUE(
      options_.parse({"--data", "a b.h5", "--rate=1e-3", "--seen", "--features", "price,country",
                      "--k", "5,20", "--timeout", "30s", "--fruit", "apple"}));
  EXPECT_EQ(values_.data, "a b.h5");
  EXPECT_EQ(values_.steps, 10);
  EXPECT_EQ(values_.rate, 1e-3f);
  EXPECT_TRUE(values_.seen);
  EXPECT_EQ(values_.features, (std::vector<std::string>{"price", "country"}));
  EXPECT_EQ(values_.cutoffs, (std::vector<std::int64_t>{5, 20}));
  EXPECT_EQ(values_.timeout, std::chrono::seconds(30));
  EXPECT_EQ(values_.fruit, Fruit::kApple);
}

TEST_F(OptionsTest, ListsTakeCommasSpacesAndTheOptionAgain) {
  ASSERT_TRUE(options_.parse(
      {"--data", "x", "--features", "a,b", "c", "--features", "d", "--k", "5", "6"}));
  EXPECT_EQ(values_.features, (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_EQ(values_.cutoffs, (std::vector<std::int64_t>{5, 6}));
}

TEST_F(OptionsTest, ALetterIsShortForAName) {
  std::string output;
  options_.add("output,o", output, "");
  ASSERT_TRUE(options_.parse({"--data", "x", "-o", "plan.json"}));
  EXPECT_EQ(output, "plan.json");
  EXPECT_TRUE(options_.is_given("output"));
  EXPECT_FALSE(options_.is_given("steps"));
}

TEST_F(OptionsTest, ErrorsNameOptionAndWhatItTakes) {
  EXPECT_EQ(error_of({"--data", "x", "--steps", "0"}),
            "--steps \"0\" (takes a whole number from 1)");
  EXPECT_EQ(error_of({"--data", "x", "--steps", "3x"}),
            "--steps \"3x\" (takes a whole number from 1)");
  EXPECT_EQ(error_of({"--data", "x", "--steps", "99999999999999999999"}),
            "--steps \"99999999999999999999\" (takes a whole number from 1)");
  EXPECT_EQ(error_of({"--data", "x", "--rate", "-1"}), "--rate \"-1\" (takes a number from 0)");
  EXPECT_EQ(error_of({"--data", "x", "--rate", "nan"}), "--rate \"nan\" (takes a number from 0)");
  EXPECT_EQ(error_of({"--data", "x", "--seen=maybe"}), "--seen \"maybe\" (takes true or false)");
  EXPECT_EQ(error_of({"--data", "x", "--k", "5,ten"}), "--k \"ten\" (takes a whole number from 1)");
  EXPECT_EQ(error_of({"--data", "x", "--timeout", "30"}),
            "--timeout \"30\" (takes a time such as 500ms, 30s, 5min)");
  EXPECT_EQ(error_of({"--data", "x", "--fruit", "plum"}), "--fruit \"plum\" (takes apple|pear)");
  EXPECT_EQ(error_of({"--steps", "1"}), "--data is missing see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--stepz", "1"}),
            "unrecognised option '--stepz' see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--step", "1"}),
            "unrecognised option '--step' see serrate try --help");
  EXPECT_EQ(error_of({"--data"}),
            "the required argument for option '--data' is missing see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--config", "/no/such"}),
            "--config /no/such (it cannot be read) give a file of name=value lines");
}

TEST_F(OptionsTest, CommandLineGoesBeforeConfigFile) {
  const std::string path = ::testing::TempDir() + "options_test.ini";
  std::ofstream(path) << "# a comment\nsteps=7\nrate = 2\ndata=from_file\n";
  ASSERT_TRUE(options_.parse({"--config", path, "--steps", "8"}));
  EXPECT_EQ(values_.data, "from_file");
  EXPECT_EQ(values_.steps, 8);
  EXPECT_EQ(values_.rate, 2);

  std::ofstream(path) << "stepz=7\n";
  EXPECT_EQ(error_of({"--config", path, "--data", "x"}),
            path + ": unrecognised option 'stepz' see serrate try --help");
}

TEST_F(OptionsTest, EffectiveOptionsCanBeReadBack) {
  ASSERT_TRUE(options_.parse({"--data", "x", "--steps", "3"}));
  EXPECT_EQ(options_.effective(),
            "data=x\nsteps=3\nrate=0.5\nseen=false\nfeatures=\nk=10\ntimeout=1000ms\nfruit=pear\n");
  const std::string path = ::testing::TempDir() + "options_test_effective.ini";
  std::ofstream(path) << options_.effective();
  ASSERT_TRUE(options_.parse({"--config", path}));
  EXPECT_EQ(values_.data, "x");
  EXPECT_EQ(values_.steps, 3);
}

TEST_F(OptionsTest, PositionalValue) {
  std::string path;
  options_.add_positional("path", path);
  ASSERT_TRUE(options_.parse({"here.h5", "--data", "x"}));
  EXPECT_EQ(path, "here.h5");
  EXPECT_EQ(error_of({"--data", "x"}), "PATH is missing see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "a", "b"}),
            "too many positional options have been specified on the command line see serrate try "
            "--help");
}

}  // namespace
}  // namespace serrate::cli
