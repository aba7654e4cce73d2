#include "src/cli/options.h"

#include <fmt/format.h>
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
    options_.add(option("data", values_.data, "").required());
    options_.add(option("steps", values_.steps, "", {1}));
    options_.add(option("rate", values_.rate, ""));
    options_.add(option("seen", values_.seen, ""));
    options_.add(option("features", values_.features, ""));
    options_.add(option("k", values_.cutoffs, "", {1}));
    options_.add(option("timeout", values_.timeout, ""));
    options_.add(option("fruit", values_.fruit, "", "apple|pear", fruit_from_string));
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
  options_.add(option("output", output, "").with_letter('o'));
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
  EXPECT_EQ(error_of({"--data", "x", "--k", "5,ten"}),
            "--k \"5,ten\" (takes a whole number from 1)");
  EXPECT_EQ(error_of({"--data", "x", "--k", "5,"}), "--k \"5,\" (takes a whole number from 1)");
  for (const char* list : {"a,", ",a", "a,,b", ","}) {
    EXPECT_EQ(error_of({"--data", "x", "--features", list}),
              fmt::format("--features \"{}\" (takes A,B,.. without an empty part)", list));
  }
  EXPECT_EQ(error_of({"--data", "x", "--timeout", "30"}),
            "--timeout \"30\" (takes a time such as 500ms, 30s, 5min or 2h, up to a year)");
  EXPECT_EQ(error_of({"--data", "x", "--fruit", "plum"}), "--fruit \"plum\" (takes apple|pear)");
  EXPECT_EQ(error_of({"--steps", "1"}), "--data is missing; see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--stepz", "1"}),
            "unrecognised option '--stepz'; see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--step", "1"}),
            "unrecognised option '--step'; see serrate try --help");
  // Boost's placeholders, which its own message would be filled with without end.
  for (const char* name :
       {"--%original_token%", "--%canonical_option%", "--steps%option%", "-x%original_token%"}) {
    EXPECT_EQ(error_of({"--data", "x", name}),
              fmt::format("unrecognised option '{}'; see serrate try --help", name));
  }
  EXPECT_EQ(error_of({"--data", "x", "--%canonical_option%="}),
            "unrecognised option '--%canonical_option%'; see serrate try --help");
  EXPECT_EQ(error_of({"--data"}),
            "the required argument for option '--data' is missing; see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "--config", "/no/such"}),
            "/no/such cannot be read (No such file or directory)");
}

TEST_F(OptionsTest, CommandLineGoesBeforeConfigFile) {
  const std::string path = ::testing::TempDir() + "options_test.ini";
  std::ofstream(path) << "# a comment\nsteps=7\nrate = 2\ndata=from_file\n";
  ASSERT_TRUE(options_.parse({"--config", path, "--steps", "8"}));
  EXPECT_EQ(values_.data, "from_file");
  EXPECT_EQ(values_.steps, 8);
  EXPECT_EQ(values_.rate, 2);

  std::ofstream(path) << "data = a#b # comment\r\n\n  \t# another\nseen=true\nfeatures=a,b";
  ASSERT_TRUE(options_.parse({"--config", path}));
  EXPECT_EQ(values_.data, "a#b");
  EXPECT_TRUE(values_.seen);
  EXPECT_EQ(values_.features, (std::vector<std::string>{"a", "b"}));
}

TEST_F(OptionsTest, AConfigFilesErrorsNameTheLine) {
  const std::string path = ::testing::TempDir() + "options_test_errors.ini";
  const auto error_with = [&](const std::string& lines) {
    std::ofstream(path) << lines;
    return error_of({"--config", path, "--data", "x"});
  };
  EXPECT_EQ(error_with("steps=7\nstepz=7\n"),
            path + ":2: \"stepz\" is not an option of serrate try");
  EXPECT_EQ(error_with("steps=7\n# steps=7\nsteps = 8\n"),
            path + ":3: \"steps\" appears for the second time");
  EXPECT_EQ(error_with("data=y\ndata=z"), path + ":2: \"data\" appears for the second time");
  EXPECT_EQ(error_with("steps=0\n"), path + ":1: --steps \"0\" (takes a whole number from 1)");
  EXPECT_EQ(error_with("\nsteps 7\n"), path + ":2: \"steps 7\" is not name=value");
  EXPECT_EQ(error_with("config=other\n"), path + ":1: \"config\" is not an option of serrate try");
}

TEST_F(OptionsTest, AConfigFileMayBeJson) {
  const std::string path = ::testing::TempDir() + "options_test.json";
  std::ofstream(path) << R"({"data": "x", "steps": 7, "rate": 1e-3, "seen": true,
                            "features": ["a", "b"], "k": [5, 20], "fruit": "apple"})";
  ASSERT_TRUE(options_.parse({"--config", path, "--k", "1"}));
  EXPECT_EQ(values_.data, "x");
  EXPECT_EQ(values_.steps, 7);
  EXPECT_EQ(values_.rate, 1e-3f);
  EXPECT_TRUE(values_.seen);
  EXPECT_EQ(values_.features, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(values_.cutoffs, (std::vector<std::int64_t>{1}));
  EXPECT_EQ(values_.fruit, Fruit::kApple);

  const auto error_with = [&](const std::string& json) {
    std::ofstream(path) << json;
    return error_of({"--config", path, "--data", "x"});
  };
  EXPECT_EQ(error_with(R"({"stepz": 7})"), path + ": \"stepz\" is not an option of serrate try");
  EXPECT_EQ(error_with(R"({"steps": 0})"), path + ": --steps \"0\" (takes a whole number from 1)");
  EXPECT_EQ(error_with(R"({"steps": 1e30})"),
            path + ": --steps \"1e+30\" (takes a whole number from 1)");
  EXPECT_EQ(error_with(R"({"steps": {}})"),
            path + ": steps: is neither text, a number, true, false nor a list");
  EXPECT_EQ(error_with(R"({"features": ["a,b"]})"), path + ": features: has a comma in it");
  EXPECT_EQ(error_with(R"({"features": ["a", ""]})"), path + ": features: has an empty part");
  EXPECT_EQ(error_with(R"({"steps": 1, "steps": 2})"),
            path + ": steps: appears twice in the same object");
}

TEST_F(OptionsTest, TextIsALineOfUtf8) {
  EXPECT_EQ(error_of({"--data", "a\xff"}), "--data \"a\xff\" (takes one line of UTF-8)");
  EXPECT_EQ(error_of({"--data", "a\nb"}), "--data \"a\nb\" (takes one line of UTF-8)");
}

TEST_F(OptionsTest, EffectiveOptionsCanBeReadBack) {
  ASSERT_TRUE(options_.parse({"--data", "x", "--steps", "3"}));
  EXPECT_EQ(options_.effective(),
            "data=x\nsteps=3\nrate=0.5\nseen=false\nfeatures=\nk=10\ntimeout=1s\nfruit=pear\n");
  const std::string path = ::testing::TempDir() + "options_test_effective.ini";
  std::ofstream(path) << options_.effective();
  ASSERT_TRUE(options_.parse({"--config", path}));
  EXPECT_EQ(values_.data, "x");
  EXPECT_EQ(values_.steps, 3);
}

TEST_F(OptionsTest, EffectiveOptionsKeepBlanksHashesAndQuotes) {
  const std::string path = ::testing::TempDir() + "options_test_quoted.ini";
  for (const std::string data :
       {"a b", " a", "a\t", "#a", "a #b # c", "\"", "\"a\" # b", "a\\b #\\", "a=b #c=d", "a\"b"}) {
    ASSERT_TRUE(options_.parse({"--data", data, "--features", "x, #y"}));
    std::ofstream(path) << options_.effective();
    ASSERT_TRUE(options_.parse({"--config", path}));
    EXPECT_EQ(values_.data, data);
    EXPECT_EQ(values_.features, (std::vector<std::string>{"x", " #y"}));
  }
  const auto error_with = [&](const std::string& lines) {
    std::ofstream(path) << lines;
    return error_of({"--config", path});
  };
  EXPECT_EQ(error_with("data=\"a #b\"   # c\n"), "no error");
  EXPECT_EQ(values_.data, "a #b");
  EXPECT_EQ(error_with("data=\"a\n"), path + ":1: \"a has to end with its second quote");
  EXPECT_EQ(error_with("data=\"a\"b\n"), path + ":1: \"a\"b has to end with its second quote");
  EXPECT_EQ(error_with("data # =a\n"), path + ":1: \"data\" is not name=value");
}

TEST_F(OptionsTest, PositionalValue) {
  std::string path;
  options_.add_positional("path", path);
  ASSERT_TRUE(options_.parse({"here.h5", "--data", "x"}));
  EXPECT_EQ(path, "here.h5");
  EXPECT_EQ(error_of({"--data", "x"}), "PATH is missing; see serrate try --help");
  EXPECT_EQ(error_of({"--data", "x", "a", "b"}),
            "too many positional options have been specified on the command line; see serrate try "
            "--help");
}

}  // namespace
}  // namespace serrate::cli
