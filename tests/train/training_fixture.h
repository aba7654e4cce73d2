#pragma once

#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "src/train/train_step.h"
#include "tests/support/on_host.h"

namespace serrate {

/// A small model of two tables on random batches, trained on any number of ranks.
struct SmallTraining {
  std::int64_t num_items = 40;
  std::int64_t num_countries = 5;
  std::int64_t num_sequences = 0;   // of most batches; 0: 3 to 7
  std::int64_t most_countries = 2;  // of an event
  TrainOptions options;

  SmallTraining() {
    options.seed = 3;
    options.micro_batch_tokens = 12;  // several micro-batches a step
    options.invalid_ids = InvalidIds::kError;
    // The bias of the keys has no effect on a softmax: its gradient is rounding noise, which Adam
    // with a tiny eps would blow up to steps of the learning rate.
    options.dense_optimizer = {.learning_rate = 0.01f, .eps = 1e-4f};
    options.model = {.dim = 8,
                     .num_blocks = 2,
                     .num_heads = 2,
                     .max_length = 6,
                     .dropout = 0.2f,
                     .temperature = 0.5f,
                     .features = {"country"}};
  }

  std::vector<EmbeddingTable> tables() const {
    return {{.name = "item",
             .num_rows = num_items,
             .dim = options.model.dim,
             .features = {"item", kTargetFeature, kNegativeFeature},
             .init_scale = 0.3f,
             .data_type = options.embedding_precision},
            {.name = "country",
             .num_rows = num_countries,
             .dim = options.model.dim,
             .features = {"country"},
             .init_scale = 0.3f,
             .data_type = options.embedding_precision}};
  }

  struct Event {
    std::int64_t item;
    std::vector<std::int64_t> countries;
  };

  /// The global batch of a step, which depends on it alone: some sequences (in every fourth batch
  /// 0 to 2) of 2 to 7 events, each with an item and some countries, or none.
  std::vector<std::vector<Event>> sequences(std::int64_t step) const {
    std::mt19937 random(static_cast<unsigned>(step));
    const auto below = [&](std::int64_t n) { return static_cast<std::int64_t>(random()) % n; };
    const std::int64_t usual_size = num_sequences > 0 ? num_sequences : 3 + below(5);
    std::vector<std::vector<Event>> result(step % 4 == 3 ? step % 3 : usual_size);
    for (std::vector<Event>& sequence : result) {
      sequence.resize(2 + below(6));
      for (Event& event : sequence) {
        event.item = below(num_items);
        event.countries.resize(below(most_countries + 1));
        for (std::int64_t& id : event.countries) id = below(num_countries);
      }
    }
    return result;
  }

  std::vector<std::int64_t> negatives(std::int64_t step) const {
    return draw_negatives(12, num_items, options.seed, step);
  }

  /// Rank `rank`'s shares of the global batch of a step.
  NextItemBatch batch(std::int64_t step, int rank, int world_size, const Stream& stream) const {
    const std::vector<std::vector<Event>> all = sequences(step);
    const BatchShares shares = batch_shares(options, rank, world_size);
    const auto begin_of = [&](std::int64_t v) { return v * std::ssize(all) / shares.count; };
    SequenceBatch share;
    share.sequence_offsets = {0};
    for (std::int64_t v = shares.begin; v <= shares.end; ++v) {
      share.share_offsets.push_back(begin_of(v) - begin_of(shares.begin));
    }
    share.features.resize(2);
    for (FeatureBags& bags : share.features) bags.offsets = {0};
    for (std::int64_t s = begin_of(shares.begin); s < begin_of(shares.end); ++s) {
      for (const Event& event : all[s]) {
        add_bag(share.features[0], {event.item});
        add_bag(share.features[1], event.countries);
      }
      share.sample_ids.push_back(step * 100 + s);
      share.sequence_offsets.push_back(share.features[0].offsets.size() - 1);
    }
    BatchShape shape = batch_shape(options, num_items);
    shape.rank = rank;
    shape.world_size = world_size;
    return make_next_item_batch(share, {"item", "country"}, negatives(step), shape, stream);
  }

  static void add_bag(FeatureBags& bags, const std::vector<std::int64_t>& ids) {
    bags.values.insert(bags.values.end(), ids.begin(), ids.end());
    bags.offsets.push_back(static_cast<std::int64_t>(bags.values.size()));
  }
};

/// Whole tensors of a training by name, put together from the shards of its ranks.
using Tensors = std::map<std::string, std::vector<float>>;

/// Adds what this rank holds; safe from several threads.
inline void collect(TrainState& state, Tensors& tensors) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  for (const LocalShard& local : state.embedding.local_shards()) {
    for (const auto& [part, on_device] :
         {std::pair<const char*, InputMatrix>{"weights", local.weights},
          {"state", local.state},
          {"second_moment", local.second_moment}}) {
      if (!on_device.has_data()) continue;
      std::vector<float> values = on_host(on_device, state.stream);
      const MatrixView<float> matrix(values.data(), on_device.rows, on_device.cols);
      const EmbeddingTable& table = state.embedding.tables()[local.table == "item" ? 0 : 1];
      const bool one_a_row = matrix.cols == 1;
      const std::int64_t width = one_a_row ? 1 : table.dim;
      auto& whole = tensors[local.table + "." + part];
      whole.resize(table.num_rows * width);
      for (std::int64_t r = 0; r < matrix.rows; ++r) {
        const std::int64_t column = one_a_row ? 0 : local.shard.column_begin;
        std::copy_n(matrix.row(r), matrix.cols,
                    whole.begin() + (local.shard.row_begin + r) * width + column);
      }
    }
  }
  DenseParameters& dense = state.encoder.parameters();
  if (state.communicator.rank() == 0) {
    tensors["dense"] = on_host(dense.values(), state.stream);
    tensors["dense.first_moment"] = on_host(dense.first_moment(), state.stream);
    tensors["dense.second_moment"] = on_host(dense.second_moment(), state.stream);
  }
}

}  // namespace serrate
