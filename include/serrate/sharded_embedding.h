#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "serrate/any_matrix.h"
#include "serrate/buffer.h"
#include "serrate/communicator.h"
#include "serrate/device_span.h"
#include "serrate/embedding_table.h"
#include "serrate/error.h"
#include "serrate/jagged_tensor.h"
#include "serrate/sharding_plan.h"

namespace serrate {

/// What happens to an id outside its table, found on the rank that read it, before routing.
enum class InvalidIds {
  kError,  ///< Error (usage) naming feature, sample, position and id
  kDrop,   ///< the id is left out of its bag, and counted
  kOov,    ///< the id becomes the table's last row (num_rows - 1, kept for it), and is counted
};

/// "error", "drop", "oov"; from_string throws Error (usage) otherwise.
std::string to_string(InvalidIds policy);
InvalidIds invalid_ids_from_string(const std::string& name);

/// How the sum of a bag is made where a plan has the rows of its table on several ranks.
enum class SplitBags {
  kPartialSums,  ///< each owner's rows first: fewest bytes, and bits that depend on the plan
  kIdOrder,      ///< row after row as the ids stand, as if the table were whole: a row is sent for
                 ///< every id
};

struct EmbeddingOptions {
  SparseOptimizerOptions optimizer;
  InvalidIds invalid_ids = InvalidIds::kError;
  std::uint64_t seed = 0;  ///< of first weights, and of the rounding of tables in fp16 and bf16
  SplitBags split_bags = SplitBags::kPartialSums;
};

/// A feature looked up in a table: one output [num_bags of the feature, dim of the table].
struct EmbeddingLookup {
  std::string feature;
  std::string table;
};

/// The ids of a batch that waits for its step; its buffers are reused from batch to batch.
/// input_dist makes it on an input stream, beside the stream of the steps, which waits for it in
/// take(). At the end the input stream waits for the stream of the steps, before `ahead` or the
/// exchange goes. An exchange that takes its batches gets none by input_dist. A loop:
///   embedding.input_dist(features of the first batch, ahead, input_stream);
///   for each step:
///     exchange.take(ahead, stream);
///     lookup, output_dist, the model, output_dist_backward, update: with exchange, on stream
///     ahead.send_after(stream);
///     embedding.input_dist(features of the next batch, ahead, input_stream);
///   input_stream.wait_for(stream);
class EmbeddingInput {
 public:
  EmbeddingInput();
  ~EmbeddingInput();
  EmbeddingInput(EmbeddingInput&&) noexcept;
  EmbeddingInput& operator=(EmbeddingInput&&) noexcept;

  /// Ids that go through nodes are sent when what `stream` has been given is done: kernels of
  /// several NCCL communicators must not wait for peers on the GPU at once. It comes after the last
  /// collective of the step; ids are parted and counted before.
  void send_after(const Stream& stream);
  /// What take() will throw, of the batch that waits: some rank's is wrong.
  std::optional<Error> failure() const;

  /// Bytes allocated for it on this rank.
  std::int64_t bytes() const;

  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

/// The routes and buffers of one batch on its way through a ShardedEmbedding, reused from batch to
/// batch. Several may be in flight.
class EmbeddingExchange {
 public:
  EmbeddingExchange();
  ~EmbeddingExchange();
  EmbeddingExchange(EmbeddingExchange&&) noexcept;
  EmbeddingExchange& operator=(EmbeddingExchange&&) noexcept;

  /// The batch of `ahead` is the next one for the stages from lookup on, on `stream`. `ahead` gets
  /// the buffers of the batch before, for the next input_dist. Throws the Error of every rank when
  /// the batch of some rank was wrong.
  void take(EmbeddingInput& ahead, const Stream& stream);

  /// After output_dist: [num_bags, dim] of a lookup, and the gradient of it that the caller writes
  /// before output_dist_backward.
  DeviceMatrix<const float> output(std::int64_t lookup) const;
  DeviceMatrix<float> d_output(std::int64_t lookup);

  /// Bytes allocated for it on this rank.
  std::int64_t bytes() const;

  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

/// One shard held by this rank, for checkpoints, evaluation and inspection.
struct LocalShard {
  std::string table;
  Shard shard;
  OutputMatrix weights;       ///< [shard rows, shard columns] of the table's data_type
  DeviceMatrix<float> state;  ///< see EmbeddingUpdate
  DeviceMatrix<float> second_moment;
};

/// Embedding tables sharded over the ranks of a communicator by a plan. The stages of a step, in
/// order; each is collective where it moves data:
///   input_dist            ids to the owners of their rows        (all-to-all)
///   lookup                pooling on the owner
///   output_dist           pooled rows back to the samples        (all-to-all)
///   output_dist_backward  gradients to the owners                (all-to-all)
///   update                grouped by row, optimizer applied, each row once
/// Updates are in the order of (lookup, rank, bag): the same for every world size. So, with
/// SplitBags::kIdOrder, outputs and tables have the same bits for every world size and plan when
/// the ranks' batches are consecutive parts of the same global batch. Where the ranks
/// of one node, of several, hold the rows of a table or column block (table_row_wise, grid), what
/// is exchanged goes through nodes: between nodes a bag costs one row, not one from every owner.
class ShardedEmbedding {
 public:
  /// Refuses, with an Error (usage) naming the field and the rank, a plan that does not fit the
  /// tables or that differs between ranks. Row r of a table starts with the same values under
  /// every plan. The communicator has to outlive the object.
  ShardedEmbedding(std::vector<EmbeddingTable> tables, ShardingPlan plan, EmbeddingOptions options,
                   Communicator& communicator, const Stream& stream);
  ~ShardedEmbedding();

  const std::vector<EmbeddingTable>& tables() const;
  const ShardingPlan& plan() const;
  const EmbeddingOptions& options() const;
  /// Whether some table's rows are exchanged through nodes, by communicators of their own.
  bool through_nodes() const;
  /// Lookups in the order of tables, then of their features.
  const std::vector<EmbeddingLookup>& lookups() const;
  /// Throws Error (usage) naming the lookups there are.
  std::int64_t lookup_index(std::string_view feature, std::string_view table) const;

  /// Waits for the stream, and for the other ranks, to know the sizes of all that comes. A batch
  /// that is wrong on some rank is an Error on every one.
  void input_dist(const KeyedJaggedTensor& features, EmbeddingExchange& exchange,
                  const Stream& stream);
  /// The same ahead of the batch's step, which begins with EmbeddingExchange::take; a batch that is
  /// wrong is an Error there, so that the step before can be finished. On a GPU `stream` is one
  /// beside the step's; it outlives `ahead` and the exchange. `features` are read on it alone.
  void input_dist(const KeyedJaggedTensor& features, EmbeddingInput& ahead, const Stream& stream);
  /// In place of it on a rank that has no batch: take() throws `why` on every rank.
  void announce_failure(const Error& why, EmbeddingInput& ahead);
  void lookup(EmbeddingExchange& exchange, const Stream& stream);
  void output_dist(EmbeddingExchange& exchange, const Stream& stream);
  void output_dist_backward(EmbeddingExchange& exchange, const Stream& stream);
  /// `step` counts from 1, another for each update: Adam's bias correction and rounding go by it.
  void update(EmbeddingExchange& exchange, std::int64_t step, const Stream& stream);

  std::vector<LocalShard> local_shards();
  /// Ids dropped or sent to the out-of-vocabulary row on this rank, in the batches looked up so
  /// far.
  std::int64_t invalid_ids() const;
  /// Bytes allocated on this rank: weights, optimizer state.
  std::int64_t weight_bytes() const;
  std::int64_t optimizer_bytes() const;
  /// Bytes that this rank sends to other nodes of the plan, there and back, for the batch in
  /// `exchange` and all tables but the data-parallel: ids, weights, pooled rows, gradients.
  std::int64_t bytes_between_nodes(EmbeddingExchange& exchange) const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate
