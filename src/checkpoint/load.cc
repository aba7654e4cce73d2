#include "src/checkpoint/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "comm/together.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/manifest.h"
#include "src/checkpoint/rank_file.h"
#include "src/checkpoint/worker.h"
#include "src/core/say.h"

namespace serrate {
namespace {

/// A training that writes into the directory removes old checkpoints while they are read here; its
/// newer ones are found by looking again.
constexpr int kMostLooks = 20;

struct Candidate {
  std::int64_t step = 0;
  std::string path;
  Manifest manifest;
};

/// Whether it is the checkpoint's fault. What is not, a lack of descriptors for instance, ends the
/// loading: the newest checkpoint is not given up for it.
bool is_damage(const Error& error) {
  return error.kind() == ErrorKind::kUsage;
}

/// Rank 0's search through the checkpoints of a directory, newest first.
class Search {
 public:
  explicit Search(std::string directory) : directory_(std::move(directory)) {}

  /// The text of the next intact manifest, after its step and a space; empty when there is none.
  std::string next() {
    for (;;) {
      const auto found = list_checkpoints(directory_);
      any_ = any_ || !found.empty();
      const auto untried = std::ranges::find_if(
          found, [&](const FoundCheckpoint& c) { return !tried_.contains(c.step); });
      if (untried == found.end()) return "";
      try {
        current_ = *untried;
        const std::string text = read_manifest_text(current_.path);
        manifest_of_folder(text, current_.path, current_.step);
        return fmt::format("{} {}", current_.step, text);
      } catch (const Error& error) {
        if (!is_damage(error)) throw;
        pass_over(error.what());
      }
    }
  }

  /// The current one cannot be loaded.
  void pass_over(const std::string& why) {
    if (!std::filesystem::exists(current_.path) && ++looks_ < kMostLooks) return;
    tried_.insert(current_.step);
    if (first_problem_.empty()) first_problem_ = why;
    say(fmt::format("passing over the checkpoint of step {}: {}", current_.step, why));
  }

  bool any() const { return any_; }
  const std::string& first_problem() const { return first_problem_; }

 private:
  std::string directory_;
  std::set<std::int64_t> tried_;
  FoundCheckpoint current_;
  std::string first_problem_;
  bool any_ = false;
  int looks_ = 0;
};

/// Rank 0's next candidate, on every rank. Nullopt when the directory holds no checkpoint at all.
std::optional<Candidate> next_candidate(Search& search, const std::string& directory,
                                        Communicator& communicator) {
  std::string text;
  together(communicator, "checkpoint: search", [&] {
    if (communicator.rank() > 0) return;
    text = search.next();
    if (!text.empty() || !search.any()) return;
    throw usage_error(
        fmt::format("{}: no checkpoint is intact (of the newest: {}): restore it, or start "
                    "afresh in another directory",
                    directory, search.first_problem()));
  });
  text = communicator.gather_strings("checkpoint: manifest", text).front();
  if (text.empty()) return std::nullopt;
  const std::size_t space = text.find(' ');
  Candidate candidate;
  candidate.step = std::stoll(text.substr(0, space));
  candidate.path = checkpoint_folder(directory, candidate.step);
  candidate.manifest = manifest_from_json(text.substr(space + 1), candidate.path);
  return candidate;
}

[[noreturn]] void fail_other_model(const std::string& path, const std::string& what) {
  throw usage_error(fmt::format("{} is of another model: {}", path, what));
}

/// Every rank finds the same.
void check_same_model(const Candidate& candidate, const CheckpointState& state, LoadedParts what) {
  const Manifest& manifest = candidate.manifest;
  const SparseOptimizer optimizer = state.embedding.options().optimizer.type;
  if (what == LoadedParts::kAll && manifest.optimizer != optimizer) {
    fail_other_model(candidate.path,
                     fmt::format("its embeddings were trained with {}, these are with {}",
                                 to_string(manifest.optimizer), to_string(optimizer)));
  }
  for (const EmbeddingTable& table : state.embedding.tables()) {
    const ManifestTable* stored = manifest.find_table(table.name);
    if (!stored)
      fail_other_model(candidate.path, fmt::format("it has no table \"{}\"", table.name));
    if (stored->num_rows != table.num_rows || stored->dim != table.dim) {
      fail_other_model(candidate.path,
                       fmt::format("its table \"{}\" is {} x {}, the model's {} x {}", table.name,
                                   stored->num_rows, stored->dim, table.num_rows, table.dim));
    }
    if (stored->data_type != table.data_type) {
      fail_other_model(candidate.path,
                       fmt::format("its table \"{}\" is in {}, the model's in {}", table.name,
                                   to_string(stored->data_type), to_string(table.data_type)));
    }
  }
  for (const CheckpointTensor& tensor : state.tensors) {
    const auto stored = std::ranges::find(manifest.tensors, tensor.name, &ManifestTensor::name);
    if (stored == manifest.tensors.end()) {
      fail_other_model(candidate.path, fmt::format("it has no tensor \"{}\"", tensor.name));
    }
    if (stored->rows != tensor.values.rows || stored->columns != tensor.values.cols) {
      fail_other_model(
          candidate.path,
          fmt::format("its tensor \"{}\" is {} x {}, the model's {} x {}", tensor.name,
                      stored->rows, stored->columns, tensor.values.rows, tensor.values.cols));
    }
  }
  if (manifest.tables.size() > state.embedding.tables().size()) {
    fail_other_model(candidate.path,
                     fmt::format("it has {} tables, the model {}", manifest.tables.size(),
                                 state.embedding.tables().size()));
  }
  if (what == LoadedParts::kAll && manifest.tensors.size() > state.tensors.size()) {
    fail_other_model(candidate.path, fmt::format("it has {} tensors, the model {}",
                                                 manifest.tensors.size(), state.tensors.size()));
  }
}

/// What a rank's reading came to: "" when it is done, "d..." damage, "f..." anything else.
std::string try_read(const Candidate& candidate, const CheckpointState& state, LoadedParts what,
                     Communicator& communicator, const Stream& stream) {
  std::string damage;
  Worker worker;
  worker.start([&] {
    try {
      read_checkpoint(candidate.path, candidate.manifest, state, what, communicator, stream);
    } catch (const Error& error) {
      if (!is_damage(error)) throw;
      damage = fmt::format("d{}", error.what());
    }
  });
  wait_for_all(worker, communicator);
  return worker.failure().empty() ? damage : fmt::format("f{}", worker.failure());
}

std::optional<LoadedCheckpoint> load(const std::string& directory, const CheckpointState& state,
                                     LoadedParts what, Communicator& communicator,
                                     const Stream& stream) {
  Search search(directory);
  for (;;) {
    std::optional<Candidate> candidate = next_candidate(search, directory, communicator);
    if (!candidate) return std::nullopt;
    check_same_model(*candidate, state, what);
    const auto outcomes = communicator.gather_strings(
        "checkpoint: read", try_read(*candidate, state, what, communicator, stream));
    const auto bad = std::ranges::find_if(outcomes, [](const auto& o) { return !o.empty(); });
    if (bad == outcomes.end()) {
      return LoadedCheckpoint{candidate->step, std::move(candidate->manifest.integers),
                              std::move(candidate->manifest.texts)};
    }
    // Out of memory, for instance, says nothing about the checkpoint.
    const auto failed =
        std::ranges::find_if(outcomes, [](const auto& o) { return o.starts_with('f'); });
    const auto worst = failed == outcomes.end() ? bad : failed;
    std::string why = worst->substr(1);
    if (outcomes.size() > 1) why = fmt::format("rank {}: {}", worst - outcomes.begin(), why);
    if (worst == failed) throw Error(fmt::format("{}: loading failed: {}", candidate->path, why));
    if (communicator.rank() == 0) search.pass_over(why);
  }
}

}  // namespace

std::optional<LoadedCheckpoint> read_newest_manifest(const std::string& directory,
                                                     Communicator& communicator) {
  Search search(directory);
  std::optional<Candidate> found = next_candidate(search, directory, communicator);
  if (!found) return std::nullopt;
  return LoadedCheckpoint{found->step, std::move(found->manifest.integers),
                          std::move(found->manifest.texts)};
}

std::optional<LoadedCheckpoint> load_checkpoint(const std::string& directory,
                                                const CheckpointState& state,
                                                Communicator& communicator, const Stream& stream) {
  return load(directory, state, LoadedParts::kAll, communicator, stream);
}

std::optional<LoadedCheckpoint> load_weights(const std::string& directory,
                                             const CheckpointState& state,
                                             Communicator& communicator, const Stream& stream) {
  return load(directory, state, LoadedParts::kWeights, communicator, stream);
}

}  // namespace serrate
