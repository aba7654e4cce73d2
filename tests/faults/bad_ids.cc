#include <fmt/format.h>
#include <hdf5.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "serrate/error.h"
#include "serrate/sharded_embedding.h"
#include "serrate/thread_communicator.h"
#include "tests/fuzz/hdf5_edits.h"

/// Ids outside of their tables.
/// usage: bad_ids embedding SEED FIRST END      kinds [FIRST, END) of batches with bad ids
///        bad_ids dataset SOURCE TARGET COLUMN PLACE ID [PLACE ID...]
///                                              a dataset with values changed, under a right seal
/// Exit codes: 0 all were refused or counted as they should be, 1 one was not.

namespace serrate {
namespace {

using Ids = std::vector<std::int64_t>;

// Rows and features of the tables; every feature is looked up once.
const std::vector<EmbeddingTable> kTables = {
    {.name = "items", .num_rows = 7, .dim = 8, .features = {"item", "target"}},
    {.name = "tags", .num_rows = 5, .dim = 4, .features = {"tag"}}};
constexpr std::size_t kNumFeatures = 3;
constexpr std::array<const char*, kNumFeatures> kFeatures = {"item", "target", "tag"};
constexpr int kNumBatches = 3;

const EmbeddingTable& table_of(std::size_t feature) {
  return kTables[feature < 2 ? 0 : 1];
}

/// The batch of one rank: bags of every feature.
using Batch = std::array<std::vector<Ids>, kNumFeatures>;

struct Kind {
  ShardingType type = ShardingType::kTableWise;
  int world_size = 1;
  InvalidIds policy = InvalidIds::kError;
  int bad_batch = 0;
  std::vector<Batch> bad;  // by rank: that batch
};

std::int64_t bad_id(std::int64_t num_rows, std::mt19937_64& random) {
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min(),
                         kMost = std::numeric_limits<std::int64_t>::max();
  const std::array ids = {std::int64_t{-1},
                          std::int64_t{-2},
                          kLeast,
                          kLeast + 1,
                          -(std::int64_t{1} << 31),
                          -(std::int64_t{1} << 32),
                          num_rows,
                          num_rows + 1,
                          std::int64_t{1} << 31,
                          std::int64_t{1} << 32,
                          (std::int64_t{1} << 32) + 1,  // 1 in 32 bits
                          (std::int64_t{1} << 53) + 1,
                          kMost - 1,
                          kMost};
  return ids[random() % ids.size()];
}

Batch sound_batch(std::mt19937_64& random) {
  Batch batch;
  const std::size_t num_bags = random() % 5;
  for (std::size_t f = 0; f < kNumFeatures; ++f) {
    batch[f].resize(num_bags);
    for (Ids& bag : batch[f]) {
      bag.resize(random() % 4);
      for (std::int64_t& id : bag) id = static_cast<std::int64_t>(random() % table_of(f).num_rows);
    }
  }
  return batch;
}

/// Puts an id into a bag of a feature: of the first, the last or any bag, before, behind or among
/// the others.
void put_bad_id(Batch& batch, std::mt19937_64& random) {
  if (batch[0].empty()) {
    for (auto& bags : batch) bags.resize(1);
  }
  const std::size_t f = random() % kNumFeatures, last = batch[f].size() - 1;
  const std::array bags = {std::size_t{0}, last, random() % (last + 1)};
  Ids& bag = batch[f][bags[random() % bags.size()]];
  bag.insert(bag.begin() + static_cast<std::ptrdiff_t>(random() % (bag.size() + 1)),
             bad_id(table_of(f).num_rows, random));
}

Kind make_kind(std::mt19937_64& random) {
  constexpr std::array types = {ShardingType::kDataParallel, ShardingType::kTableWise,
                                ShardingType::kRowWise,      ShardingType::kColumnWise,
                                ShardingType::kTableRowWise, ShardingType::kTableColumnWise,
                                ShardingType::kGrid};
  constexpr std::array policies = {InvalidIds::kError, InvalidIds::kDrop, InvalidIds::kOov};
  Kind kind;
  kind.type = types[random() % types.size()];
  kind.world_size = needs_nodes(kind.type) ? 4 : 1 + static_cast<int>(random() % 4);
  kind.policy = policies[random() % policies.size()];
  kind.bad_batch = static_cast<int>(random() % kNumBatches);
  for (int rank = 0; rank < kind.world_size; ++rank) kind.bad.push_back(sound_batch(random));
  const std::size_t num_bad = random() % 3 == 0 ? 2 + random() % 4 : 1;
  for (std::size_t i = 0; i < num_bad; ++i) {
    put_bad_id(kind.bad[random() % kind.bad.size()], random);
  }
  return kind;
}

bool is_bad(std::int64_t id, std::size_t feature) {
  return id < 0 || id >= table_of(feature).num_rows;
}

/// What the error for a batch has to say; empty without a bad id.
std::string expected_error(const Batch& batch) {
  for (std::size_t f = 0; f < kNumFeatures; ++f) {
    for (std::size_t bag = 0; bag < batch[f].size(); ++bag) {
      for (std::size_t i = 0; i < batch[f][bag].size(); ++i) {
        if (!is_bad(batch[f][bag][i], f)) continue;
        return fmt::format(
            "feature \"{}\": sample (bag) {} has id {} at position {}, but table \"{}\" has {} "
            "rows",
            kFeatures[f], bag, batch[f][bag][i], i, table_of(f).name, table_of(f).num_rows);
      }
    }
  }
  return "";
}

KeyedJaggedTensor to_tensor(const Batch& batch, const Stream& stream) {
  std::vector<std::string> keys;
  std::vector<Ids> values(kNumFeatures), offsets(kNumFeatures, {0});
  for (std::size_t f = 0; f < kNumFeatures; ++f) {
    keys.emplace_back(kFeatures[f]);
    for (const Ids& bag : batch[f]) {
      values[f].insert(values[f].end(), bag.begin(), bag.end());
      offsets[f].push_back(std::ssize(values[f]));
    }
  }
  return KeyedJaggedTensor::from_offsets(keys, values, offsets, stream);
}

float weight_of(std::int64_t row, std::int64_t column) {
  return static_cast<float>(100 * (row + 1) + column);
}

void set_weights(ShardedEmbedding& embedding, const Stream& stream) {
  for (const LocalShard& local : embedding.local_shards()) {
    const MatrixView<float> weights = host_view(local.weights, stream);
    for (std::int64_t r = 0; r < weights.rows; ++r) {
      for (std::int64_t c = 0; c < weights.cols; ++c) {
        weights.row(r)[c] = weight_of(local.shard.row_begin + r, local.shard.column_begin + c);
      }
    }
  }
}

void check_weights(ShardedEmbedding& embedding, const Stream& stream) {
  for (const LocalShard& local : embedding.local_shards()) {
    const MatrixView<float> weights = host_view(local.weights, stream);
    for (std::int64_t r = 0; r < weights.rows; ++r) {
      for (std::int64_t c = 0; c < weights.cols; ++c) {
        check(
            weights.row(r)[c] == weight_of(local.shard.row_begin + r, local.shard.column_begin + c),
            "a weight has changed");
      }
    }
  }
}

/// Bags are sums of what the policy leaves.
void check_outputs(ShardedEmbedding& embedding, const EmbeddingExchange& exchange,
                   const Batch& batch, InvalidIds policy, const Stream& stream) {
  for (std::size_t f = 0; f < kNumFeatures; ++f) {
    const MatrixView<const float> output =
        host_view(exchange.output(embedding.lookup_index(kFeatures[f], table_of(f).name)), stream);
    check(output.rows == std::ssize(batch[f]), "another number of bags");
    for (std::int64_t bag = 0; bag < output.rows; ++bag) {
      for (std::int64_t c = 0; c < output.cols; ++c) {
        float sum = 0;  // of whole numbers below 2^24: exact in any order
        for (std::int64_t id : batch[f][static_cast<std::size_t>(bag)]) {
          if (is_bad(id, f) && policy == InvalidIds::kDrop) continue;
          sum += weight_of(is_bad(id, f) ? table_of(f).num_rows - 1 : id, c);
        }
        if (output.row(bag)[c] != sum) {
          throw Error(fmt::format("{} bag {} column {} is {}, not {}", kFeatures[f], bag, c,
                                  output.row(bag)[c], sum));
        }
      }
    }
  }
}

std::int64_t count_bad(const Batch& batch) {
  std::int64_t count = 0;
  for (std::size_t f = 0; f < kNumFeatures; ++f) {
    for (const Ids& bag : batch[f]) {
      count += std::ranges::count_if(bag, [&](std::int64_t id) { return is_bad(id, f); });
    }
  }
  return count;
}

ShardingPlan plan_of(const Kind& kind) {
  const bool nodes = needs_nodes(kind.type);
  ShardingPlan plan{.world_size = kind.world_size, .tables = {}};
  if (nodes) plan.ranks_per_node = 2;
  for (const EmbeddingTable& table : kTables) {
    plan.tables.push_back(nodes ? shard_table(table, kind.type, kind.world_size, 3, 2)
                                : shard_table(table, kind.type, kind.world_size));
  }
  return plan;
}

void run_rank(const Kind& kind, std::uint64_t seed, Communicator& communicator) {
  const Stream stream;
  std::mt19937_64 random(seed + static_cast<std::uint64_t>(communicator.rank()));
  EmbeddingOptions options;
  options.invalid_ids = kind.policy;
  ShardedEmbedding embedding(kTables, plan_of(kind), options, communicator, stream);
  set_weights(embedding, stream);
  const Batch& bad = kind.bad[static_cast<std::size_t>(communicator.rank())];
  EmbeddingExchange exchange;
  for (int number = 0; number < kNumBatches; ++number) {
    const Batch batch = number == kind.bad_batch ? bad : sound_batch(random);
    try {
      embedding.input_dist(to_tensor(batch, stream), exchange, stream);
      embedding.lookup(exchange, stream);
      embedding.output_dist(exchange, stream);
    } catch (const Error&) {
      check_weights(embedding, stream);
      throw;
    }
    check_outputs(embedding, exchange, batch, kind.policy, stream);
  }
  check(embedding.invalid_ids() == count_bad(bad), "another number of invalid ids is counted");
  check_weights(embedding, stream);
}

/// What is wrong with how a kind is dealt with; empty when nothing is.
std::string problem_of(const Kind& kind, std::uint64_t seed) {
  std::string message;
  bool is_usage = false;
  try {
    run_thread_ranks(kind.world_size, std::chrono::seconds(20),
                     [&](Communicator& communicator) { run_rank(kind, seed, communicator); });
  } catch (const Error& error) {
    message = error.what();
    is_usage = error.kind() == ErrorKind::kUsage;
  } catch (const std::exception& error) {
    return fmt::format("not an Error: {}", error.what());
  }
  if (kind.policy != InvalidIds::kError) return message;
  if (!is_usage) return fmt::format("not the ids to blame: \"{}\"", message);
  for (const Batch& batch : kind.bad) {
    const std::string expected = expected_error(batch);
    if (!expected.empty() && message.find(expected) != message.npos) return "";
  }
  return fmt::format("\"{}\" is of none of the bad ids", message);
}

int try_embedding(std::uint64_t seed, std::uint64_t first, std::uint64_t end) {
  int failed = 0;
  for (std::uint64_t number = first; number < end; ++number) {
    std::mt19937_64 random(seed * 1'000'003 + number);
    const Kind kind = make_kind(random);
    const std::string problem = problem_of(kind, number);
    if (problem.empty()) continue;
    fmt::print("kind {}: {} of {} ranks, {}: {}\n", number, to_string(kind.type), kind.world_size,
               to_string(kind.policy), problem);
    ++failed;
  }
  return failed == 0 ? 0 : 1;
}

void change_dataset(const std::string& source, const std::string& target, const std::string& column,
                    const std::vector<std::string>& changes) {
  const hid_t file = H5Fopen(source.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t dataset = H5Dopen2(file, column.c_str(), H5P_DEFAULT);
  const haddr_t begin = H5Dget_offset(dataset);
  check(file >= 0 && dataset >= 0 && begin != HADDR_UNDEF, "no column " + column);
  H5Dclose(dataset);
  H5Fclose(file);
  std::string content = read_sealed(source);
  for (std::size_t i = 0; i + 1 < changes.size(); i += 2) {
    const std::size_t at = begin + 8 * std::stoull(changes[i]);
    const std::int64_t id = std::stoll(changes[i + 1]);
    check(at + sizeof(id) <= content.size(), "no place " + changes[i]);
    std::memcpy(&content[at], &id, sizeof(id));
  }
  write_sealed(target, content);
}

int run(const std::vector<std::string>& words) {
  if (words.size() == 4 && words[0] == "embedding") {
    return try_embedding(std::stoull(words[1]), std::stoull(words[2]), std::stoull(words[3]));
  }
  if (words.size() >= 6 && words[0] == "dataset") {
    change_dataset(words[1], words[2], words[3], {words.begin() + 4, words.end()});
    return 0;
  }
  throw usage_error("bad_ids embedding SEED FIRST END | dataset SOURCE TARGET COLUMN PLACE ID ...");
}

}  // namespace
}  // namespace serrate

int main(int argc, char** argv) {
  try {
    return serrate::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "bad_ids: {}\n", error.what());
    return 2;
  }
}
