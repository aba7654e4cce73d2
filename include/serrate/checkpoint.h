#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "serrate/communicator.h"
#include "serrate/device_span.h"
#include "serrate/sharded_embedding.h"
#include "serrate/stream.h"

namespace serrate {

/// A dense tensor that every rank holds alike: weights, or a moment of their optimizer.
struct CheckpointTensor {
  std::string name;  ///< no other tensor's of the checkpoint
  DeviceMatrix<float> values;
};

/// What a checkpoint holds of a training, and where it is loaded to. Checkpoints depend neither on
/// the number of ranks nor on the plan (docs/checkpoint_format.md).
struct CheckpointState {
  ShardedEmbedding& embedding;  ///< its tables with their optimizer state
  std::vector<CheckpointTensor> tensors = {};
  /// What else the training needs to go on, by name: where its reader is, counters, options that
  /// have to stay. The same on every rank; rank 0's are written.
  std::map<std::string, std::int64_t> integers = {};
  std::map<std::string, std::string> texts = {};
};

struct LoadedCheckpoint {
  std::int64_t step = 0;
  std::map<std::string, std::int64_t> integers;
  std::map<std::string, std::string> texts;
};

/// Loads the newest intact checkpoint of a directory into a state of any plan and number of ranks;
/// every rank reads the parts it needs. Those passed over are named on stderr with what is wrong
/// with them. Nullopt when the directory holds none. Error (usage) when none is intact, or when it
/// is of another model; the state is of no use then. Collective.
std::optional<LoadedCheckpoint> load_checkpoint(const std::string& directory,
                                                const CheckpointState& state,
                                                Communicator& communicator, const Stream& stream);

/// Writes the checkpoints of one training into a directory, and resumes from them. While it exists
/// no other one, of any process, has the directory. Calls are collective but where they say not.
///
/// A checkpoint counts from the moment its folder is renamed to step_N, when all of it is on disk;
/// whatever fails before leaves those that are there as they are.
class CheckpointWriter {
 public:
  /// Makes the directory if it is not there and removes what a killed writer left half written.
  /// `keep` is how many of the newest checkpoints stay. Error (usage) when another process or
  /// writer has the directory, naming it.
  CheckpointWriter(std::string directory, int keep, Communicator& communicator);
  /// Gives up what is being written and not complete.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// As load_checkpoint; newer checkpoints that are damaged are renamed to damaged.step_N.
  std::optional<LoadedCheckpoint> resume(const CheckpointState& state, const Stream& stream);

  /// Writes a checkpoint; it is on disk when this returns. Error when it could not be written, or
  /// when a value is not finite. One of an earlier step than another in the directory, which would
  /// soon be removed as older, is not written.
  void save(std::int64_t step, const CheckpointState& state, const Stream& stream);

  /// Copies the state and returns; a thread of each rank writes the copy. Waits for a checkpoint
  /// that is still being written. Error when a value is not finite or a name or text is not UTF-8;
  /// any other failure is reported on stderr by poll() or finish(), and the training can go on.
  void start(std::int64_t step, const CheckpointState& state, const Stream& stream);
  /// Takes a checkpoint that is being written a step further, if all ranks are ready to: call it
  /// now and then, after every training step. Does not wait.
  void poll();
  /// Waits until nothing is being written.
  void finish();
  /// Whether a checkpoint is being written; the same on every rank, not collective.
  bool busy() const;
  /// The newest one that is on disk; 0 when there is none. Not collective.
  std::int64_t newest_step() const;
  /// Bytes of the copy that start() keeps on this rank. Not collective.
  std::int64_t copy_bytes() const;

  /// Called on rank 0, by a thread, before a checkpoint counts: makes durable what has to go with
  /// it, as a log of the steps so far. What it throws is a failure of the checkpoint.
  void set_before_commit(std::function<void()> before_commit);

  /// poll() in two halves, for a loop that has a sum over ranks in every step anyway: words() of
  /// this rank, to be summed over the ranks, and what to do with the sums, on every rank.
  static constexpr std::size_t kWords = 2;
  std::array<std::int64_t, kWords> words() const;
  void advance(const std::array<std::int64_t, kWords>& sums);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serrate
