#include "serrate/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <filesystem>
#include <limits>

#include "tests/checkpoint/checkpoint_fixture.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using testing::message_of;

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
  has(problem([](Manifest& m) { m.files[1] = m.files[0]; }), "appear twice");
  has(problem([](Manifest& m) { m.files.pop_back(); }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards.pop_back(); }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards[0].part.row_end -= 1; }), "values are missing");
  has(problem([](Manifest& m) { m.files[0].shards[0].part.row_begin -= 1; }), "appear twice");
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

}  // namespace
}  // namespace serrate
