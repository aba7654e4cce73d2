#include "serrate/sharded_embedding.h"

#include <fmt/format.h>

#include "src/embedding/agreement.h"
#include "src/embedding/init_weights.h"
#include "src/embedding/sharded_embedding_impl.h"

namespace serrate {
namespace {

// Values of state for each weight.
std::int64_t state_arrays(SparseOptimizer optimizer) {
  switch (optimizer) {
    case SparseOptimizer::kSgd:
    case SparseOptimizer::kRowWiseAdagrad:
      return 0;
    case SparseOptimizer::kAdagrad:
      return 1;
    case SparseOptimizer::kAdam:
      return 2;
  }
  return 0;
}

ShardStorage make_storage(const ShardPlace& place, const EmbeddingTable& table,
                          const EmbeddingOptions& options, const Stream& stream) {
  const SparseOptimizer optimizer = options.optimizer.type;
  const std::int64_t rows = place.shard.num_rows(), columns = place.shard.num_columns();
  ShardStorage storage{.place = place,
                       .data_type = table.data_type,
                       .num_arrays = state_arrays(optimizer),
                       .rows = {},
                       .rounded = {},
                       .row_state = {}};
  if (table.data_type == DataType::kFloat32) {
    storage.num_arrays += 1;
    storage.rows =
        initial_rows(table, place.shard, storage.num_arrays * columns, options.seed, stream);
  } else {
    storage.rounded = initial_rounded_rows(table, place.shard, options.seed, stream);
    storage.rows = Buffer<float>::zeros(rows * storage.num_arrays * columns, stream);
  }
  const bool row_state = optimizer == SparseOptimizer::kRowWiseAdagrad;
  storage.row_state = Buffer<float>::zeros(row_state ? rows : 0, stream);
  return storage;
}

// By rank `rank` of a group in which every ranks_per_node ranks are on one node.
std::int64_t sent_to_other_nodes(const HopMessages& messages, bool weighted, int rank,
                                 int ranks_per_node) {
  const Messages &requested = messages.requested, &served = messages.served;
  std::int64_t words = 0, floats = 0;
  for (int to = 0; to < std::ssize(requested.word_counts); ++to) {
    if (to / ranks_per_node == rank / ranks_per_node) continue;
    words += requested.word_counts[to];
    floats += requested.row_counts[to] + served.row_counts[to];
    if (weighted) floats += requested.weight_counts[to];
  }
  return words * std::int64_t{sizeof(std::int64_t)} + floats * std::int64_t{sizeof(float)};
}

}  // namespace

ShardedEmbedding::ShardedEmbedding(std::vector<EmbeddingTable> tables, ShardingPlan plan,
                                   EmbeddingOptions options, Communicator& communicator,
                                   const Stream& stream) {
  check_agreement(tables, plan, options, communicator);
  validate_plan(plan, tables, communicator.size());
  Routing routing = make_routing(tables, plan, options.split_bags, communicator.rank());
  impl_.reset(new Impl{.tables = std::move(tables),
                       .plan = std::move(plan),
                       .options = options,
                       .communicator = communicator,
                       .lookups = {},
                       .routing = std::move(routing),
                       .shards = {},
                       .across_nodes = {},
                       .within_node = {}});
  if (impl_->routing.through_nodes) {
    impl_->across_nodes = communicator.split(impl_->routing.in_node.rank);
    impl_->within_node = communicator.split(impl_->routing.to_node.rank);
  }
  for (const LookupRoute& route : impl_->routing.lookups) {
    impl_->lookups.push_back({route.feature, impl_->tables[route.table].name});
  }
  for (const ShardPlace& place : impl_->routing.shards) {
    impl_->shards.push_back(make_storage(place, impl_->tables[place.table], options, stream));
  }
}

ShardedEmbedding::~ShardedEmbedding() = default;

const std::vector<EmbeddingTable>& ShardedEmbedding::tables() const {
  return impl_->tables;
}
const ShardingPlan& ShardedEmbedding::plan() const {
  return impl_->plan;
}
bool ShardedEmbedding::through_nodes() const {
  return impl_->routing.through_nodes;
}
const EmbeddingOptions& ShardedEmbedding::options() const {
  return impl_->options;
}
const std::vector<EmbeddingLookup>& ShardedEmbedding::lookups() const {
  return impl_->lookups;
}

std::int64_t ShardedEmbedding::lookup_index(std::string_view feature,
                                            std::string_view table) const {
  std::string known;
  for (std::size_t i = 0; i < impl_->lookups.size(); ++i) {
    const EmbeddingLookup& lookup = impl_->lookups[i];
    if (lookup.feature == feature && lookup.table == table) return static_cast<std::int64_t>(i);
    known += fmt::format("{}{} in {}", known.empty() ? "" : ", ", lookup.feature, lookup.table);
  }
  throw usage_error(fmt::format("feature \"{}\" is not looked up in table \"{}\" (there are: {})",
                                feature, table, known));
}

std::vector<LocalShard> ShardedEmbedding::local_shards() {
  std::vector<LocalShard> result;
  for (ShardStorage& s : impl_->shards) {
    result.push_back({impl_->tables[s.place.table].name, s.place.shard, s.weights(), s.state(),
                      s.second_moment()});
  }
  return result;
}

std::int64_t ShardedEmbedding::invalid_ids() const {
  return impl_->invalid_ids;
}

std::int64_t ShardedEmbedding::weight_bytes() const {
  std::int64_t bytes = 0;
  for (const ShardStorage& s : impl_->shards) bytes += s.weight_bytes();
  return bytes;
}

std::int64_t ShardedEmbedding::optimizer_bytes() const {
  std::int64_t bytes = 0;
  for (const ShardStorage& s : impl_->shards) bytes += s.bytes() - s.weight_bytes();
  return bytes;
}

std::int64_t ShardedEmbedding::bytes_between_nodes(EmbeddingExchange& exchange) const {
  const EmbeddingInput::State& s = exchange.state().input;
  const int ranks_per_node = impl_->plan.ranks_per_node;
  if (ranks_per_node == 0) return 0;
  std::int64_t bytes =
      sent_to_other_nodes(s.direct, s.weighted, impl_->routing.direct.rank, ranks_per_node);
  if (impl_->routing.through_nodes) {
    bytes += sent_to_other_nodes(s.to_node, s.weighted, impl_->routing.to_node.rank, 1);
  }
  return bytes;
}

EmbeddingInput::EmbeddingInput() : state_(std::make_unique<State>()) {}
EmbeddingInput::~EmbeddingInput() = default;
EmbeddingInput::EmbeddingInput(EmbeddingInput&&) noexcept = default;
EmbeddingInput& EmbeddingInput::operator=(EmbeddingInput&&) noexcept = default;

std::int64_t EmbeddingInput::State::bytes() const {
  std::int64_t bytes = direct.bytes() + to_node.bytes() + in_node.bytes() + replicated.bytes() +
                       gathered.bytes() + parts.bytes() + passed_on_parts.bytes() +
                       positions.bytes();
  for (const BatchLookup& lookup : lookups) bytes += lookup.bytes();
  for (const BatchLookup& lookup : passed_on) bytes += lookup.bytes();
  return bytes;
}

std::int64_t EmbeddingInput::bytes() const {
  return state_->bytes();
}

EmbeddingExchange::EmbeddingExchange() : state_(std::make_unique<State>()) {}
EmbeddingExchange::~EmbeddingExchange() = default;
EmbeddingExchange::EmbeddingExchange(EmbeddingExchange&&) noexcept = default;
EmbeddingExchange& EmbeddingExchange::operator=(EmbeddingExchange&&) noexcept = default;

DeviceMatrix<const float> EmbeddingExchange::output(std::int64_t lookup) const {
  return state_->input.lookups.at(lookup).matrix(state_->outputs);
}

DeviceMatrix<float> EmbeddingExchange::d_output(std::int64_t lookup) {
  return state_->input.lookups.at(lookup).matrix(state_->d_outputs);
}

std::int64_t EmbeddingExchange::bytes() const {
  const State& s = *state_;
  std::int64_t bytes = s.input.bytes() + s.groups.bytes();
  for (const RowGroups& groups : s.column_groups) bytes += groups.bytes();
  for (const auto* buffer :
       {&s.outputs, &s.d_outputs, &s.unpooled, &s.squares, &s.squares_sent, &s.squares_received}) {
    bytes += buffer->bytes();
  }
  return bytes;
}

}  // namespace serrate
