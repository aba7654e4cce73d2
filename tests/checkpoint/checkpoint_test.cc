#include "serrate/checkpoint.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>

#include "src/checkpoint/directory_lock.h"
#include "src/checkpoint/exact_cover.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/manifest.h"
#include "src/io/text_file.h"
#include "src/run/checkpoint.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/train/training_fixture.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::message_of;
using testing::TemporaryFolder;

/// Where the tables of a training are.
struct Layout {
  int world_size = 1;
  ShardingType type = ShardingType::kTableWise;
};

ShardingPlan plan_of(const std::vector<EmbeddingTable>& tables, const Layout& layout) {
  const int in_node = layout.world_size % 2 == 0 ? 2 : 1;
  ShardingPlan plan{.world_size = layout.world_size, .tables = {}, .ranks_per_node = in_node};
  for (const EmbeddingTable& t : tables) {
    plan.tables.push_back(
        shard_table(t, layout.type, layout.world_size, layout.world_size - 1, in_node));
  }
  return plan;
}

constexpr Layout kLayouts[] = {
    {1, ShardingType::kTableWise},    {2, ShardingType::kDataParallel},
    {3, ShardingType::kRowWise},      {2, ShardingType::kColumnWise},
    {4, ShardingType::kTableRowWise}, {4, ShardingType::kTableColumnWise},
    {4, ShardingType::kGrid},         {3, ShardingType::kTableWise},
};
constexpr SparseOptimizer kOptimizers[] = {SparseOptimizer::kSgd, SparseOptimizer::kAdagrad,
                                           SparseOptimizer::kRowWiseAdagrad,
                                           SparseOptimizer::kAdam};
constexpr DataType kDataTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16};

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() { training_.options.sparse_optimizer.type = SparseOptimizer::kAdam; }

  /// What one rank does with a training that was begun or resumed.
  using Body = std::function<void(Communicator&, TrainState&, CheckpointWriter&)>;

  void on_ranks(const Layout& layout, std::uint64_t seed, const Body& body) {
    const auto tables = training_.tables();
    const ShardingPlan plan = plan_of(tables, layout);
    run_ranks(layout.world_size, [&](Communicator& communicator) {
      const Stream stream;
      TrainOptions options = training_.options;
      options.seed = seed;
      TrainState state(tables, plan, options, communicator, stream);
      CheckpointWriter writer(directory_, keep_, communicator);
      body(communicator, state, writer);
    });
  }

  void steps(TrainState& state, int first, int last) {
    for (int step = first; step <= last; ++step) {
      const Communicator& c = state.communicator;
      train_step(state, training_.batch(step, c.rank(), c.size(), state.stream), step);
    }
  }

  /// Trains to step `last`, saves, and returns the tensors.
  Tensors train_and_save(const Layout& layout, int last) {
    Tensors tensors;
    on_ranks(layout, 3, [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
      steps(state, 1, last);
      writer.save(last, checkpoint_state(state), state.stream);
      collect(state, tensors);
    });
    return tensors;
  }

  /// The tensors of what is loaded into other initial values, and its step.
  std::pair<Tensors, std::int64_t> load(const Layout& layout) {
    Tensors tensors;
    std::int64_t step = 0;
    on_ranks(layout, 99, [&](Communicator& communicator, TrainState& state, CheckpointWriter&) {
      const auto loaded =
          load_checkpoint(directory_, checkpoint_state(state), communicator, state.stream);
      if (communicator.rank() == 0 && loaded) step = loaded->step;
      collect(state, tensors);
    });
    return {tensors, step};
  }

  fs::path folder(int step) const { return fs::path(checkpoint_folder(directory_, step)); }

  static void damage(const fs::path& file, std::int64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(at);
    stream.put(byte);
  }

  /// Rewrites a manifest, with the checksum that belongs to it.
  void rewrite_manifest(int step, const std::function<void(Manifest&)>& change) {
    Manifest manifest = read_manifest(folder(step), step);
    change(manifest);
    write_text_file(folder(step) / kManifestName, manifest_to_json(manifest));
  }

  TemporaryFolder temporary_;
  SmallTraining training_;
  std::string directory_ = temporary_.file("run/checkpoint");
  int keep_ = 2;
};

TEST_F(CheckpointTest, EveryRanksAndPlanLoadsIntoEveryOther) {
  for (std::size_t from = 0; from < std::size(kLayouts); ++from) {
    training_.options.sparse_optimizer.type = kOptimizers[from % std::size(kOptimizers)];
    training_.options.embedding_precision = kDataTypes[from % std::size(kDataTypes)];
    const Tensors saved = train_and_save(kLayouts[from], 3);
    for (const Layout& to : kLayouts) {
      const auto [loaded, step] = load(to);
      EXPECT_EQ(step, 3);
      EXPECT_EQ(loaded, saved) << from << " into " << to.world_size << to_string(to.type);
    }
    fs::remove_all(directory_);
  }
}

TEST_F(CheckpointTest, TablesOf16BitsGoOnWithTheSameBits) {
  const Layout layout{2, ShardingType::kRowWise};
  for (const DataType data_type : {DataType::kFloat16, DataType::kBFloat16}) {
    training_.options.embedding_precision = data_type;
    const Tensors whole = train_and_save(layout, 6);
    fs::remove_all(directory_);
    train_and_save(layout, 3);
    Tensors resumed;
    on_ranks(layout, 3, [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
      EXPECT_EQ(writer.resume(checkpoint_state(state), state.stream)->step, 3);
      steps(state, 4, 6);
      collect(state, resumed);
    });
    EXPECT_EQ(resumed, whole) << to_string(data_type);
    fs::remove_all(directory_);
  }
}

TEST_F(CheckpointTest, SaysOfWhatTypeTablesAreAndLoadsNoOther) {
  const Layout layout{1, ShardingType::kTableWise};
  train_and_save(layout, 1);
  EXPECT_NE(read_text_file(folder(1) / kManifestName).find("\"version\": 2,"), std::string::npos);
  const auto refusal = [&] { return message_of<Error>([&] { load(layout); }); };
  training_.options.embedding_precision = DataType::kFloat16;
  EXPECT_NE(refusal().find("its table \"item\" is in fp32, the model's in fp16"), std::string::npos)
      << refusal();
  fs::remove_all(directory_);
  train_and_save(layout, 1);
  EXPECT_NE(read_text_file(folder(1) / kManifestName).find("\"version\": 3,"), std::string::npos);
  EXPECT_EQ(read_manifest(folder(1), 1).find_table("item")->data_type, DataType::kFloat16);
  training_.options.embedding_precision = DataType::kBFloat16;
  EXPECT_NE(refusal().find("its table \"item\" is in fp16, the model's in bf16"), std::string::npos)
      << refusal();
  // A manifest that says otherwise than its file.
  rewrite_manifest(1, [](Manifest& m) {
    for (ManifestTable& table : m.tables) table.data_type = DataType::kBFloat16;
  });
  EXPECT_NE(refusal().find("does not hold values of type bf16"), std::string::npos) << refusal();
}

TEST_F(CheckpointTest, ACopyOfTablesOf16BitsHasThem) {
  // Shards of 13 x 3 weights, an odd number, with float32 state behind them.
  training_.options.model.dim = 3;
  training_.options.model.num_heads = 1;
  training_.options.sparse_optimizer.type = SparseOptimizer::kAdagrad;
  std::vector<std::int64_t> of_fp32;  // bytes of each rank
  for (const DataType data_type : kDataTypes) {
    SCOPED_TRACE(to_string(data_type));
    training_.options.embedding_precision = data_type;
    Tensors saved;
    std::vector<std::int64_t> bytes(3), halves(3);
    on_ranks({3, ShardingType::kRowWise}, 3,
             [&](Communicator& communicator, TrainState& state, CheckpointWriter& writer) {
               steps(state, 1, 2);
               writer.start(2, checkpoint_state(state), state.stream);
               bytes[communicator.rank()] = writer.copy_bytes();
               writer.finish();
               for (const LocalShard& local : state.embedding.local_shards()) {
                 halves[communicator.rank()] += local.weights.rows * local.weights.cols / 2 * 4;
               }
               collect(state, saved);
             });
    EXPECT_EQ(load({1, ShardingType::kTableWise}).first, saved);
    fs::remove_all(directory_);
    if (data_type == DataType::kFloat32) of_fp32 = bytes;
    for (int rank = 0; rank < 3 && data_type != DataType::kFloat32; ++rank) {
      EXPECT_EQ(bytes[rank], of_fp32[rank] - halves[rank]) << rank;
    }
  }
}

TEST_F(CheckpointTest, ColumnsOfOneHaveTheirOwnState) {
  // Elementwise state of a shard of one column has the shape of one value a row, but is not.
  training_.options.sparse_optimizer.type = SparseOptimizer::kAdagrad;
  const Tensors saved = train_and_save({1, ShardingType::kTableWise}, 3);
  const auto tables = training_.tables();
  ShardingPlan plan{.world_size = 2, .tables = {}};
  for (const EmbeddingTable& t : tables) {
    TableSharding columns{.table = t.name, .type = ShardingType::kColumnWise};
    columns.shards = {{0, t.num_rows, 0, t.dim - 1, 0}, {0, t.num_rows, t.dim - 1, t.dim, 1}};
    plan.tables.push_back(columns);
  }
  run_ranks(2, [&](Communicator& communicator) {
    const Stream stream;
    TrainState state(tables, plan, training_.options, communicator, stream);
    load_checkpoint(directory_, checkpoint_state(state), communicator, stream);
    CheckpointWriter(directory_, 1, communicator).save(4, checkpoint_state(state), stream);
  });
  const auto [back, step] = load({3, ShardingType::kRowWise});
  EXPECT_EQ(step, 4);
  EXPECT_EQ(back, saved);
}

TEST_F(CheckpointTest, EveryPlanSavesTheSameModel) {
  training_.options.model.dropout = 0;
  for (const Layout& layout : kLayouts) {
    const Tensors saved = train_and_save(layout, 1);
    EXPECT_EQ(load({3, ShardingType::kRowWise}).first, saved) << to_string(layout.type);
    fs::remove_all(directory_);
  }
}

TEST_F(CheckpointTest, KeepsWhatTheCallerGaveIt) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             CheckpointState saved = checkpoint_state(state);
             saved.integers = {{"position", -7}};
             saved.texts = {{"a \"name\"", "line\nü"}, {"empty", ""}};
             writer.save(1, saved, state.stream);
           });
  on_ranks({1, ShardingType::kTableWise}, 4,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             const auto loaded = writer.resume(checkpoint_state(state), state.stream);
             ASSERT_TRUE(loaded);
             EXPECT_EQ(loaded->integers, (std::map<std::string, std::int64_t>{{"position", -7}}));
             EXPECT_EQ(loaded->texts.at("a \"name\""), "line\nü");
             EXPECT_EQ(loaded->texts.at("empty"), "");
             EXPECT_EQ(writer.newest_step(), 1);
           });
}

TEST_F(CheckpointTest, RefusesTextsThatAreNotUtf8) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             CheckpointState saved = checkpoint_state(state);
             saved.texts["name"] = "\xff";
             const std::string message =
                 message_of<Error>([&] { writer.start(1, saved, state.stream); });
             EXPECT_NE(message.find("UTF-8"), std::string::npos) << message;
             EXPECT_FALSE(writer.busy());
             saved.texts["name"] = "ü";
             writer.save(1, saved, state.stream);
             EXPECT_EQ(writer.newest_step(), 1);
           });
}

TEST_F(CheckpointTest, NothingToLoadIsNoError) {
  EXPECT_EQ(load({2, ShardingType::kRowWise}).second, 0);
}

TEST_F(CheckpointTest, FallsBackToTheOneBeforeADamagedOne) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 3);
  train_and_save({2, ShardingType::kRowWise}, 4);
  const fs::path file = folder(4) / "rank1.h5";
  const auto size = static_cast<std::int64_t>(fs::file_size(file));
  for (const std::int64_t at : {std::int64_t{0}, size / 3, size / 2, size - 1}) {
    damage(file, at);
    const auto [loaded, step] = load({2, ShardingType::kRowWise});
    EXPECT_EQ(step, 3) << at;
    EXPECT_EQ(loaded, before) << at;
    damage(file, at);  // and back
  }
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 4);
  damage(folder(4) / kManifestName, 30);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
  fs::remove(folder(3) / "rank0.h5");
  const std::string message = message_of<Error>([&] { load({1, ShardingType::kTableWise}); });
  EXPECT_NE(message.find("no checkpoint is intact"), std::string::npos) << message;
}

// Whoever has no descriptor left must not train on from an older checkpoint. Not under sanitizers:
// UBSan looks at objects through a pipe, and takes them for invalid when it gets none.
#ifndef __SANITIZE_ADDRESS__
TEST_F(CheckpointTest, ALackOfDescriptorsIsNoDamage) {
  for (const int step : {1, 2}) train_and_save({1, ShardingType::kTableWise}, step);
  on_ranks({1, ShardingType::kTableWise}, 99,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             const int free = ::dup(STDERR_FILENO);
             ::close(free);
             rlimit before{};
             ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
             const rlimit none{static_cast<rlim_t>(free), before.rlim_max};
             ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
             std::optional<ErrorKind> kind;
             try {
               writer.resume(checkpoint_state(state), state.stream);
             } catch (const Error& error) {
               kind = error.kind();
             }
             ::setrlimit(RLIMIT_NOFILE, &before);
             EXPECT_EQ(kind, ErrorKind::kFailure);
             EXPECT_EQ(writer.resume(checkpoint_state(state), state.stream)->step, 2);
           });
}
#endif

TEST(FailRead, TellsDamageFromWhatTheSystemLacks) {
  const auto kind_of = [](int number) {
    try {
      fail_read("file", number);
    } catch (const Error& error) {
      return error.kind();
    }
  };
  for (const int lack : {EMFILE, ENFILE, ENOMEM, EACCES, EPERM}) {
    EXPECT_EQ(kind_of(lack), ErrorKind::kFailure) << lack;
  }
  for (const int damage : {EIO, ENOENT, EUCLEAN, ELOOP}) {
    EXPECT_EQ(kind_of(damage), ErrorKind::kUsage) << damage;
  }
}

TEST_F(CheckpointTest, FilesOfAnotherStepOrALinkAreDamage) {
  keep_ = 3;
  for (const int step : {1, 2, 3}) train_and_save({2, ShardingType::kRowWise}, step);
  fs::copy_file(folder(2) / "rank0.h5", folder(3) / "rank0.h5",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 2);
  fs::rename(folder(2) / "rank1.h5", temporary_.file("rank1.h5"));
  fs::create_symlink(temporary_.file("rank1.h5"), folder(2) / "rank1.h5");
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 1);
}

TEST_F(CheckpointTest, RefusesManifestsThatDoNotCoverTheModel) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  train_and_save({2, ShardingType::kRowWise}, 2);
  const std::string original = read_text_file(folder(2) / kManifestName);
  const auto problem = [&](const std::function<void(Manifest&)>& change) {
    rewrite_manifest(2, change);
    const std::string message = message_of<Error>([&] { read_manifest(folder(2), 2); });
    const auto [loaded, step] = load({2, ShardingType::kColumnWise});
    EXPECT_EQ(step, 1);
    EXPECT_EQ(loaded, before);
    write_text_file(folder(2) / kManifestName, original);
    return message;
  };
  const auto has = [](const std::string& message, const std::string& part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  has(problem([](Manifest& m) { m.files[1] = m.files[0]; }), "are there twice");
  has(problem([](Manifest& m) { m.files.pop_back(); }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards.pop_back(); }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards[0].part.row_end -= 1; }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards[0].part.row_begin -= 1; }), "are there twice");
  has(problem([](Manifest& m) { m.files[0].shards[0].part.column_end += 1; }), "are no part of");
  has(problem([](Manifest& m) { m.files[0].shards[0].table = "other"; }), "unknown table");
  has(problem([](Manifest& m) { m.files[0].digest = "xyz"; }), "32 hexadecimal digits");
  has(problem([](Manifest& m) { m.tables[0].num_rows = std::int64_t{1} << 61; }), "than memory");
  has(problem([](Manifest& m) { m.step = 7; }), "step");

  // These are of another model: not a matter of falling back.
  const auto refused = [&](const std::function<void(Manifest&)>& change) {
    rewrite_manifest(2, change);
    const std::string message = message_of<Error>([&] { load({2, ShardingType::kRowWise}); });
    write_text_file(folder(2) / kManifestName, original);
    return message;
  };
  has(refused([](Manifest& m) { m.tensors.pop_back(); }), "it has no tensor");
  has(refused([](Manifest& m) { m.tensors.push_back({"more", 1, 1}); }), "tensors, the model");
  has(refused([](Manifest& m) { m.tensors[0].rows += 1; }), "its tensor \"position\" is");
  has(refused([](Manifest& m) { m.optimizer = SparseOptimizer::kSgd; }), "with sgd, these are");

  // A manifest of matrices that the files do not have.
  training_.options.sparse_optimizer.type = SparseOptimizer::kSgd;
  train_and_save({2, ShardingType::kRowWise}, 3);
  rewrite_manifest(3, [](Manifest& m) { m.optimizer = SparseOptimizer::kAdam; });
  training_.options.sparse_optimizer.type = SparseOptimizer::kAdam;
  EXPECT_EQ(load({2, ShardingType::kRowWise}).second, 2);
}

TEST_F(CheckpointTest, RefusesTextsThatAreNoManifest) {
  train_and_save({1, ShardingType::kTableWise}, 1);
  const std::string original = read_text_file(folder(1) / kManifestName);
  const auto message = [](const std::string& text) {
    return message_of<Error>([&] { manifest_from_json(text, "m"); });
  };
  EXPECT_EQ(message(original), "(no exception)");
  for (std::size_t i = 0; i < original.size(); i += 7) {
    std::string changed = original;
    changed[i] = changed[i] == '0' ? '1' : '0';
    EXPECT_NE(message(changed), "(no exception)") << i;
    EXPECT_NE(message(original.substr(0, i)), "(no exception)") << i;
  }
  EXPECT_NE(message(R"({"format": "serrate-checkpoint", "version": 1, "step": 1})"
                    "\n")
                .find("format 1"),
            std::string::npos);
}

TEST_F(CheckpointTest, RefusesAnotherModelOnEveryRank) {
  train_and_save({2, ShardingType::kRowWise}, 1);
  const auto refusal = [&] {
    return message_of<Error>([&] { load({2, ShardingType::kRowWise}); });
  };
  training_.num_items = 41;
  EXPECT_NE(refusal().find("its table \"item\" is 40 x 8, the model's 41 x 8"), std::string::npos);
  training_.num_items = 40;
  training_.options.model.num_blocks = 1;
  EXPECT_NE(refusal().find("tensors, the model"), std::string::npos) << refusal();
  training_.options.model.num_blocks = 3;
  EXPECT_NE(refusal().find("it has no tensor \"block2"), std::string::npos) << refusal();
}

TEST_F(CheckpointTest, KeepsTheNewestAndRemovesWhatWasLeftHalfWritten) {
  for (const int step : {1, 2, 3}) train_and_save({1, ShardingType::kTableWise}, step);
  fs::create_directories(fs::path(directory_) / "tmp.step_8");
  fs::create_directories(fs::path(directory_) / "step_07");  // no name of ours
  const auto found = list_checkpoints(directory_);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].step, 3);
  EXPECT_EQ(found[1].step, 2);
  train_and_save({1, ShardingType::kTableWise}, 3);  // once more, in its place
  EXPECT_FALSE(fs::exists(fs::path(directory_) / "tmp.step_8"));
  EXPECT_TRUE(fs::exists(fs::path(directory_) / "step_07"));
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
}

TEST_F(CheckpointTest, ResumingSetsDamagedOnesAside) {
  for (const int step : {1, 2}) train_and_save({1, ShardingType::kTableWise}, step);
  damage(folder(2) / "rank0.h5", 100);
  on_ranks({1, ShardingType::kTableWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             EXPECT_EQ(writer.resume(checkpoint_state(state), state.stream)->step, 1);
             EXPECT_TRUE(fs::exists(fs::path(directory_) / "damaged.step_2"));
             EXPECT_FALSE(fs::exists(folder(2)));
           });
}

TEST_F(CheckpointTest, WritesTheStateAtTheCallWhileTrainingGoesOn) {
  Tensors at_call;
  on_ranks({3, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             steps(state, 1, 2);
             collect(state, at_call);
             writer.start(2, checkpoint_state(state), state.stream);
             EXPECT_TRUE(writer.busy());
             steps(state, 3, 6);
             while (writer.busy()) writer.poll();
             EXPECT_EQ(writer.newest_step(), 2);
           });
  const auto [loaded, step] = load({2, ShardingType::kGrid});
  EXPECT_EQ(step, 2);
  EXPECT_EQ(loaded, at_call);
}

TEST_F(CheckpointTest, OneWaitsForTheOneBefore) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             for (int step = 1; step <= 3; ++step) {
               steps(state, step, step);
               writer.start(step, checkpoint_state(state), state.stream);
               EXPECT_EQ(writer.newest_step(), step - 1);
             }
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 3);
           });
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
}

TEST_F(CheckpointTest, GivenUpHalfWayItLeavesTheOneBefore) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             steps(state, 1, 2);
             writer.start(2, checkpoint_state(state), state.stream);
           });
  const auto [loaded, step] = load({1, ShardingType::kTableWise});
  EXPECT_EQ(step, 1);
  EXPECT_EQ(loaded, before);
}

TEST_F(CheckpointTest, SavesNoValueThatIsNotFinite) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  const float bad[] = {std::numeric_limits<float>::infinity(),
                       std::numeric_limits<float>::quiet_NaN()};
  for (const float value : bad) {
    const auto save_with = [&](const std::function<void(TrainState&)>& spoil, bool at_once) {
      return message_of<Error>([&] {
        on_ranks({2, ShardingType::kRowWise}, 3,
                 [&](Communicator& communicator, TrainState& state, CheckpointWriter& writer) {
                   if (communicator.rank() == 1 || communicator.size() == 1) spoil(state);
                   const CheckpointState saved = checkpoint_state(state);
                   if (at_once) {
                     writer.save(2, saved, state.stream);
                   } else {
                     writer.start(2, saved, state.stream);
                   }
                 });
      });
    };
    for (const bool at_once : {true, false}) {
      const std::string message = save_with(
          [&](TrainState& state) {
            const LocalShard local = state.embedding.local_shards().at(0);
            EXPECT_EQ(local.table, "item");
            EXPECT_EQ(local.shard.row_begin, 0);  // first_rank is the last one
            host_view(local.second_moment, state.stream).row(5)[3] = value;
          },
          at_once);
      EXPECT_NE(
          message.find("rank 1: after step 2, row 5 of the second_moment of table \"item\" is"),
          std::string::npos)
          << message;
    }
  }
  const auto [loaded, step] = load({1, ShardingType::kTableWise});
  EXPECT_EQ(step, 1);
  EXPECT_EQ(loaded, before);
  EXPECT_FALSE(fs::exists(unfinished_folder(directory_, 2)));
}

TEST_F(CheckpointTest, SavesNoValueOf16BitsThatIsNotFinite) {
  const auto refusal = [&](DataType data_type, const auto& bad) {
    training_.options.embedding_precision = data_type;
    return message_of<Error>([&] {
      on_ranks({1, ShardingType::kTableWise}, 3,
               [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
                 using T = std::remove_cvref_t<decltype(bad)>;
                 const LocalShard local = state.embedding.local_shards().at(0);
                 host_view(local.weights.as<T>(), state.stream).row(5)[3] = bad;
                 writer.save(2, checkpoint_state(state), state.stream);
               });
    });
  };
  // Numbers that are large in the one and not finite in the other.
  EXPECT_EQ(refusal(DataType::kFloat16, Float16(65504)), "(no exception)");
  EXPECT_EQ(refusal(DataType::kBFloat16, BFloat16(3.3e38f)), "(no exception)");
  constexpr float kInfinite = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float value : {kInfinite, -kInfinite, kNan}) {
    for (const std::string& message : {refusal(DataType::kFloat16, Float16(value)),
                                       refusal(DataType::kBFloat16, BFloat16(value))}) {
      EXPECT_NE(message.find("after step 2, row 5 of the weights of table \"item\" is"),
                std::string::npos)
          << message;
    }
  }
}

/// Files cannot become longer than this while it exists.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signal_);
  }

 private:
  rlimit before_{};
  void (*signal_)(int);
};

TEST_F(CheckpointTest, AFailedWriteLeavesTheOnesBeforeAndIsTriedAgain) {
  const Tensors before = train_and_save({2, ShardingType::kRowWise}, 1);
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator& communicator, TrainState& state, CheckpointWriter& writer) {
             writer.resume(checkpoint_state(state), state.stream);
             std::optional<FileSizeLimit> full;
             if (communicator.rank() == 0) full.emplace(4096);
             communicator.barrier("full");
             writer.start(2, checkpoint_state(state), state.stream);
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 1);
             EXPECT_FALSE(fs::exists(folder(2)));
             EXPECT_NE(message_of<Error>([&] {
                         writer.save(2, checkpoint_state(state), state.stream);
                       }).find("the checkpoint of step 2 could not be written"),
                       std::string::npos);
             communicator.barrier("not full");
             full.reset();
             communicator.barrier("not full");
             writer.start(3, checkpoint_state(state), state.stream);
             writer.finish();
             EXPECT_EQ(writer.newest_step(), 3);
           });
  EXPECT_EQ(load({1, ShardingType::kTableWise}).second, 3);
  EXPECT_EQ(list_checkpoints(directory_).size(), 2u);
  EXPECT_EQ(load({1, ShardingType::kTableWise}).first, before);  // nothing was trained since
}

TEST_F(CheckpointTest, WhatHasToGoBeforeMayFailIt) {
  on_ranks({2, ShardingType::kRowWise}, 3,
           [&](Communicator&, TrainState& state, CheckpointWriter& writer) {
             writer.set_before_commit([] { throw Error("the log is full"); });
             EXPECT_NE(message_of<Error>([&] {
                         writer.save(2, checkpoint_state(state), state.stream);
                       }).find("rank 0: the log is full"),
                       std::string::npos);
             writer.set_before_commit({});
             writer.save(2, checkpoint_state(state), state.stream);
             EXPECT_EQ(writer.newest_step(), 2);
           });
}

TEST_F(CheckpointTest, HasTheDirectoryAlone) {
  on_ranks(
      {1, ShardingType::kTableWise}, 3,
      [&](Communicator& communicator, TrainState&, CheckpointWriter&) {
        const std::string message =
            message_of<Error>([&] { CheckpointWriter(directory_, 2, communicator); });
        EXPECT_NE(message.find(fmt::format("in use by process {}", getpid())), std::string::npos)
            << message;
      });
  // Free again; and a lock whose directory was renamed keeps nobody from the new one.
  const DirectoryLock old(directory_);
  fs::rename(directory_, directory_ + ".1");
  fs::create_directories(directory_);
  const DirectoryLock fresh(directory_);
}

TEST(ExactCover, IsExact) {
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 2}, {0, 1, 2, 3}, {1, 4, 2, 3}}, 4, 3), "");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 2}}, 4, 3), "4 of its 12 values are missing");
  EXPECT_EQ(find_cover_problem({}, 4, 3), "12 of its 12 values are missing");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 3}, {2, 3, 1, 2}}, 4, 3),
            "rows 2 to 3 of columns 1 to 2 are there twice");
  // The same area twice, and as much missing.
  EXPECT_EQ(find_cover_problem({{0, 2, 0, 3}, {0, 2, 0, 3}}, 4, 3),
            "rows 0 to 2 of columns 0 to 3 are there twice");
  EXPECT_EQ(find_cover_problem({{0, 4, 0, 1}, {1, 3, 0, 2}, {0, 4, 2, 3}}, 4, 3),
            "rows 1 to 3 of columns 0 to 1 are there twice");
  EXPECT_EQ(find_cover_problem({{0, 5, 0, 3}}, 4, 3),
            "rows 0 to 5 of columns 0 to 3 are no part of its 4 rows and 3 columns");
  EXPECT_EQ(find_cover_problem({{-1, 4, 0, 3}}, 4, 3),
            "rows -1 to 4 of columns 0 to 3 are no part of its 4 rows and 3 columns");
  EXPECT_EQ(find_cover_problem({{2, 2, 0, 3}, {0, 4, 0, 3}}, 4, 3),
            "rows 2 to 2 of columns 0 to 3 are no part of its 4 rows and 3 columns");
}

TEST(ExactCover, AgreesWithAGridOfCounts) {
  std::mt19937 random(1);
  const auto below = [&](int n) { return static_cast<std::int64_t>(random() % n); };
  int exact = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::int64_t rows = 1 + below(4), columns = 1 + below(4);
    std::vector<Rectangle> parts;
    std::vector<int> counts(rows * columns, 0);
    for (std::int64_t n = below(6); n >= 0; --n) {
      const std::int64_t r = below(rows), c = below(columns);
      parts.push_back({r, r + 1 + below(rows - r), c, c + 1 + below(columns - c)});
      const Rectangle& p = parts.back();
      for (std::int64_t i = p.row_begin; i < p.row_end; ++i) {
        for (std::int64_t j = p.column_begin; j < p.column_end; ++j) counts[i * columns + j] += 1;
      }
    }
    const bool covers = std::ranges::all_of(counts, [](int n) { return n == 1; });
    exact += covers ? 1 : 0;
    ASSERT_EQ(find_cover_problem(parts, rows, columns).empty(), covers);
  }
  EXPECT_GT(exact, 500);
}

}  // namespace
}  // namespace serrate
