#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "comm/together.h"
#include "serrate/checkpoint.h"
#include "src/checkpoint/directory_lock.h"
#include "src/checkpoint/folder.h"
#include "src/checkpoint/manifest.h"
#include "src/checkpoint/rank_file.h"
#include "src/checkpoint/worker.h"
#include "src/core/say.h"
#include "src/io/text_file.h"

namespace serrate {
namespace {

Manifest manifest_of(std::int64_t step, const CheckpointState& state) {
  Manifest manifest{.step = step,
                    .optimizer = state.embedding.options().optimizer.type,
                    .tables = {},
                    .tensors = {},
                    .integers = state.integers,
                    .texts = state.texts,
                    .files = {}};
  for (const EmbeddingTable& t : state.embedding.tables()) {
    manifest.tables.push_back({t.name, t.num_rows, t.dim, t.data_type});
  }
  for (const CheckpointTensor& t : state.tensors) {
    manifest.tensors.push_back({t.name, t.values.rows, t.values.cols});
  }
  return manifest;
}

/// The newest are kept: one of an earlier step would be removed at once.
void check_is_newest(const std::string& directory, const std::vector<FoundCheckpoint>& found,
                     std::int64_t step) {
  if (found.empty() || found.front().step <= step) return;
  throw usage_error(
      fmt::format("{} has a checkpoint of step {}, newer than the one to be written, of step {} "
                  "(of another training, or of this one before it was begun anew): resume from it "
                  "or choose another directory",
                  directory, found.front().step, step));
}

}  // namespace

struct CheckpointWriter::Impl {
  enum class Phase { kIdle, kFiles, kCommit };
  enum class Source { kCopy, kState };

  Impl(std::string path, int num_kept, Communicator& comm)
      : directory(std::move(path)), keep(num_kept), communicator(comm) {
    together(communicator, "checkpoint: directory", [&] {
      if (keep < 1) throw usage_error("at least one checkpoint has to be kept");
      if (communicator.rank() > 0) return;
      make_folders(directory);
      lock.emplace(directory);
      for (const std::string& name : remove_unfinished(directory)) {
        say(fmt::format("removed {}/{}, which was left half written", directory, name));
      }
    });
  }
  ~Impl() { cancelled = true; }

  void begin(std::int64_t step, const CheckpointState& state, Source from, const Stream& stream);
  void advance(const std::array<std::int64_t, kWords>& sums);
  void finish();
  void commit();

  std::string directory;
  int keep;
  Communicator& communicator;
  std::optional<DirectoryLock> lock;  // of rank 0
  std::function<void()> before_commit;
  std::int64_t newest = 0;
  std::string failure;  // of the last checkpoint; empty when it is on disk

  // The checkpoint being written.
  Phase phase = Phase::kIdle;
  Source source = Source::kCopy;
  Manifest manifest;
  RankContent content;
  ManifestFile written;
  Buffer<std::byte> copy;
  std::atomic<bool> cancelled{false};
  Worker worker;  // last: its thread uses the others
};

void CheckpointWriter::Impl::begin(std::int64_t step, const CheckpointState& state, Source from,
                                   const Stream& stream) {
  finish();
  std::string cannot;  // what keeps this rank from writing; the others are told when they are done
  together(communicator, "checkpoint: copy", [&] {
    manifest = manifest_of(step, state);
    manifest_to_json(manifest);  // what cannot be written in it is an error here, on every rank
    content = content_of(state, communicator.rank());
    if (from == Source::kState) check_finite(content, step, stream);
    try {
      if (from == Source::kCopy) content = copy_content(content, step, copy, stream);
    } catch (const std::bad_alloc&) {
      cannot = fmt::format("there is no memory for a copy of {} bytes", content.num_bytes());
    }
  });
  together(communicator, "checkpoint: folder", [&] {
    if (communicator.rank() > 0) return;
    const auto attempt = [&](const auto& work) {
      try {
        work();
      } catch (const Error& error) {
        cannot = error.what();
      }
    };
    std::vector<FoundCheckpoint> found;
    attempt([&] { found = list_checkpoints(directory); });
    check_is_newest(directory, found, step);  // an error of all ranks
    attempt([&] { make_unfinished(directory, step); });
  });
  source = from;
  phase = Phase::kFiles;
  if (!cannot.empty()) return worker.fail(cannot);
  // The stream of a copy is the host's; the state is not changed while it is written.
  worker.start([this, step, &stream] {
    const std::string path = fmt::format("{}/{}", unfinished_folder(directory, step),
                                         rank_file_name(communicator.rank()));
    const Stream host(Device::cpu());
    written = write_rank_file(path, content, cancelled, source == Source::kCopy ? host : stream);
  });
}

// On rank 0, when all files are on disk.
void CheckpointWriter::Impl::commit() {
  if (before_commit) before_commit();
  const std::string folder = unfinished_folder(directory, manifest.step);
  write_text_file(fmt::format("{}/{}", folder, kManifestName), manifest_to_json(manifest));
  commit_checkpoint(directory, manifest.step);
  try {
    remove_older(directory, keep);
  } catch (const std::exception& error) {
    say(fmt::format("warning: an older checkpoint could not be removed: {}", error.what()));
  }
}

void CheckpointWriter::Impl::advance(const std::array<std::int64_t, kWords>& sums) {
  const auto [unfinished, failed] = sums;
  if (phase == Phase::kIdle || unfinished > 0) return;
  if (failed > 0) {
    phase = Phase::kIdle;
    const auto failures = communicator.gather_strings("checkpoint: failure", worker.failure());
    const auto first = std::ranges::find_if(failures, [](const auto& f) { return !f.empty(); });
    failure = communicator.size() > 1 ? fmt::format("rank {}: {}", first - failures.begin(), *first)
                                      : *first;
    if (communicator.rank() > 0) return;
    if (source == Source::kCopy) {
      say(
          fmt::format("warning: the checkpoint of step {} could not be written: {} (earlier ones "
                      "are as they were; the training goes on)",
                      manifest.step, failure));
    }
    try {
      remove_unfinished(directory);
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): the next start removes it
    }
    return;
  }
  if (phase == Phase::kCommit) {
    phase = Phase::kIdle;
    newest = manifest.step;
    failure.clear();
    return;
  }
  const auto files =
      communicator.gather_strings("checkpoint: files", manifest_file_to_json(written));
  phase = Phase::kCommit;
  if (communicator.rank() > 0) return;
  manifest.files.clear();
  for (const std::string& file : files) manifest.files.push_back(manifest_file_from_json(file));
  worker.start([this] { commit(); });
}

void CheckpointWriter::Impl::finish() {
  while (phase != Phase::kIdle) {
    worker.wait_for(kBetweenQuestions);
    std::array<std::int64_t, kWords> sums{worker.finished() ? 0 : 1, 0};
    if (worker.finished() && !worker.failure().empty()) sums[1] = 1;
    communicator.sum<std::int64_t>("checkpoint: progress", sums);
    advance(sums);
  }
}

CheckpointWriter::CheckpointWriter(std::string directory, int keep, Communicator& communicator)
    : impl_(std::make_unique<Impl>(std::move(directory), keep, communicator)) {}

CheckpointWriter::~CheckpointWriter() = default;

std::optional<LoadedCheckpoint> CheckpointWriter::resume(const CheckpointState& state,
                                                         const Stream& stream) {
  check(impl_->phase == Impl::Phase::kIdle, "a checkpoint is being written");
  auto loaded = load_checkpoint(impl_->directory, state, impl_->communicator, stream);
  if (!loaded) return loaded;
  impl_->newest = loaded->step;
  // What comes after it is of a course that the training has left.
  together(impl_->communicator, "checkpoint: set aside", [&] {
    if (impl_->communicator.rank() > 0) return;
    for (const FoundCheckpoint& found : list_checkpoints(impl_->directory)) {
      if (found.step <= loaded->step) break;
      say(fmt::format("the damaged checkpoint of step {} is now {}", found.step, set_aside(found)));
    }
  });
  return loaded;
}

void CheckpointWriter::save(std::int64_t step, const CheckpointState& state, const Stream& stream) {
  impl_->begin(step, state, Impl::Source::kState, stream);
  try {
    impl_->finish();
  } catch (...) {  // a peer was lost; the thread still reads the state
    impl_->cancelled = true;
    impl_->worker.failure();
    throw;
  }
  if (impl_->failure.empty()) return;
  throw Error(
      fmt::format("the checkpoint of step {} could not be written: {} (earlier ones are as "
                  "they were)",
                  step, impl_->failure));
}

void CheckpointWriter::start(std::int64_t step, const CheckpointState& state,
                             const Stream& stream) {
  impl_->begin(step, state, Impl::Source::kCopy, stream);
}

void CheckpointWriter::poll() {
  if (!busy()) return;
  std::array<std::int64_t, kWords> sums = words();
  impl_->communicator.sum<std::int64_t>("checkpoint: progress", sums);
  advance(sums);
}

void CheckpointWriter::finish() {
  impl_->finish();
}

bool CheckpointWriter::busy() const {
  return impl_->phase != Impl::Phase::kIdle;
}

std::int64_t CheckpointWriter::newest_step() const {
  return impl_->newest;
}

std::int64_t CheckpointWriter::copy_bytes() const {
  return impl_->copy.bytes();
}

void CheckpointWriter::set_before_commit(std::function<void()> before_commit) {
  impl_->before_commit = std::move(before_commit);
}

std::array<std::int64_t, CheckpointWriter::kWords> CheckpointWriter::words() const {
  if (!busy()) return {};
  if (!impl_->worker.finished()) return {1, 0};
  return {0, impl_->worker.failure().empty() ? 0 : 1};
}

void CheckpointWriter::advance(const std::array<std::int64_t, kWords>& sums) {
  impl_->advance(sums);
}

}  // namespace serrate
