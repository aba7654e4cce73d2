#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "serrate/checkpoint.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/manifest.h"
#include "src/io/text_file.h"
#include "src/run/checkpoint.h"
#include "tests/support/run_ranks.h"
#include "tests/support/temporary_folder.h"
#include "tests/train/training_fixture.h"

namespace serrate {

/// Where the tables of a training are.
struct Layout {
  int world_size = 1;
  ShardingType type = ShardingType::kTableWise;
};

inline ShardingPlan plan_of(const std::vector<EmbeddingTable>& tables, const Layout& layout) {
  const int in_node = layout.world_size % 2 == 0 ? 2 : 1;
  ShardingPlan plan{.world_size = layout.world_size, .tables = {}, .ranks_per_node = in_node};
  for (const EmbeddingTable& t : tables) {
    plan.tables.push_back(
        shard_table(t, layout.type, layout.world_size, layout.world_size - 1, in_node));
  }
  return plan;
}

/// A small training that saves and loads checkpoints in a folder of its own.
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

  std::filesystem::path folder(int step) const {
    return std::filesystem::path(checkpoint_folder(directory_, step));
  }

  static void damage(const std::filesystem::path& file, std::int64_t at) {
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

  testing::TemporaryFolder temporary_;
  SmallTraining training_;
  std::string directory_ = temporary_.file("run/checkpoint");
  int keep_ = 2;
};

}  // namespace serrate
