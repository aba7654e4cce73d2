#include "tests/fuzz/check_rank_file.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <vector>

#include "serrate/error.h"
#include "serrate/sharded_embedding.h"
#include "serrate/thread_communicator.h"
#include "src/checkpoint/rank_file.h"
#include "src/io/sealed_file.h"
#include "tests/fuzz/hdf5_edits.h"
#include "tests/fuzz/verdict.h"
#include "tests/support/on_host.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;

/// A model of two tables and a tensor on one rank, and the folder of its checkpoint.
struct SmallCheckpoint {
  std::vector<EmbeddingTable> tables = {
      {.name = "item", .num_rows = 5, .dim = 4, .features = {"item"}, .init_scale = 0.5f},
      {.name = "tag",
       .num_rows = 3,
       .dim = 2,
       .features = {"tag"},
       .init_scale = 0.5f,
       .data_type = DataType::kBFloat16}};
  std::unique_ptr<Communicator> communicator =
      std::move(make_thread_communicators(1, std::chrono::seconds(5)).front());
  Stream stream;
  ShardedEmbedding embedding{
      tables, plan(), {.optimizer = {SparseOptimizer::kRowWiseAdagrad}}, *communicator, stream};
  std::vector<float> dense = std::vector<float>(6, 0.5f);
  CheckpointState state{.embedding = embedding, .tensors = {{"dense", {dense.data(), 2, 3}}}};
  std::string folder = fs::path(fs::exists("/dev/shm") ? "/dev/shm" : fs::temp_directory_path()) /
                       ("serrate_rank_file_fuzz" + std::to_string(::getpid()));
  std::string path = folder + "/" + rank_file_name(0);
  Manifest manifest;
  std::unique_ptr<Hdf5Edits> sound;

  SmallCheckpoint() {
    fs::create_directories(folder);
    const std::atomic<bool> cancelled = false;
    const RankContent content = content_of(state, 0);
    manifest = {.step = 1,
                .optimizer = content.optimizer,
                .tables = {{"item", 5, 4}, {"tag", 3, 2, DataType::kBFloat16}},
                .tensors = {{"dense", 2, 3}},
                .integers = {},
                .texts = {},
                .files = {write_rank_file(path, content, cancelled, stream)}};
    sound = std::make_unique<Hdf5Edits>(read_sealed(path));
  }
  ~SmallCheckpoint() { fs::remove_all(folder); }

  ShardingPlan plan() const {
    ShardingPlan plan{.world_size = 1, .tables = {}};
    for (const EmbeddingTable& table : tables) {
      plan.tables.push_back(shard_table(table, ShardingType::kTableWise, 1, 0, 1));
    }
    return plan;
  }
};

void check_finite(const InputMatrix& matrix, const Stream& stream) {
  for (const float value : on_host(matrix, stream)) {
    if (!std::isfinite(value)) fail("loaded a value", std::to_string(value));
  }
}

}  // namespace

bool check_rank_file(const std::string& input) {
  static SmallCheckpoint small;
  if (input.empty()) return false;
  const std::string_view rest = std::string_view(input).substr(1);
  write_sealed(small.path, input[0] & 1 ? small.sound->apply(rest) : rest);
  try {
    const auto file = SealedFile::open(small.path);
    small.manifest.files[0].bytes = file->file_bytes();
    small.manifest.files[0].digest = file->digest();
    read_checkpoint(small.folder, small.manifest, small.state, LoadedParts::kAll,
                    *small.communicator, small.stream);
  } catch (const Error&) {
    return false;
  } catch (const std::exception& error) {
    fail("not an Error", error.what());
  }
  for (const LocalShard& shard : small.embedding.local_shards()) {
    check_finite(shard.weights, small.stream);
    check_finite(shard.state, small.stream);
  }
  check_finite(small.state.tensors[0].values, small.stream);
  return true;
}

}  // namespace serrate
