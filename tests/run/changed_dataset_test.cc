// What happens to a dataset while it is trained on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "serrate/trainer.h"
#include "src/data/generate.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_folder.h"

namespace serrate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

/// Trains on three ranks; `change` is made to the file after the first step.
std::string train_on_changing_dataset(const std::function<void(const std::string& path)>& change) {
  const TemporaryFolder folder;
  TrainOptions options;
  options.data = folder.file("data.h5");
  options.output = folder.file("run");
  options.steps = 300;
  options.batch_size = 6;
  options.model = {.dim = 4, .num_blocks = 1, .num_heads = 1, .max_length = 5};
  generate({.output = options.data, .users = 500, .items = 20, .events = 20'000, .seed = 1});
  return message_of<Error>([&] {
    run_ranks(3, [&](Communicator& communicator) {
      Trainer trainer(options, communicator);
      trainer.step();
      communicator.barrier("first step");
      if (communicator.rank() == 0) change(options.data);
      while (!trainer.done()) trainer.step();
    });
  });
}

TEST(ChangedDataset, ACutFileEndsTheTraining) {
  EXPECT_THAT(train_on_changing_dataset(
                  [](const std::string& path) { std::filesystem::resize_file(path, 8192); }),
              AllOf(HasSubstr("data.h5 was cut off"), HasSubstr("are missing")));
}

TEST(ChangedDataset, AnOverwrittenFileEndsTheTraining) {
  EXPECT_THAT(train_on_changing_dataset([](const std::string& path) {
                std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
                file.seekp(8192);
                file << std::string(std::filesystem::file_size(path) - 8192, '\1');
              }),
              AllOf(HasSubstr("data.h5 is damaged (bytes "), HasSubstr("checksum")));
}

TEST(ChangedDataset, AnotherFileOfTheNameDisturbsNobody) {
  EXPECT_EQ(train_on_changing_dataset([](const std::string& path) {
              generate({.output = path, .users = 5, .items = 2, .events = 20, .seed = 1});
            }),
            "(no exception)");
}

}  // namespace
}  // namespace serrate
