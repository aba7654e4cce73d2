#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serrate/trainer.h"
#include "src/core/option.h"

namespace serrate {

/// Every option of `serrate train`, bound to the fields of `options`: the only place that knows
/// their names, what they may be and which of them a resumed run has to repeat.
std::vector<Option> option_table(TrainOptions& options);
/// Those of `serrate evaluate`.
std::vector<Option> option_table(EvaluateOptions& options);

/// --device of a command.
Option device_option(std::string& field);
/// What it would have been given as: "auto" is "cpu" or "cuda", by what `used` of this rank is.
std::string device_given(const std::string& option, Device used);

/// Throws Error (usage) that names an option outside its range, or two that exclude each other.
void check_options(const TrainOptions& options, int world_size);
void check_options(const EvaluateOptions& options);

/// Throws Error (usage) for a precision that the device has not.
void check_precision(Precision precision, Device device);

/// Says, if so, that attention will run without tensor cores in tf32 or bf16; for rank 0.
void say_plain_attention(const SequenceModelOptions& model);

/// Tokens that pass through the encoder at once, where there is memory for them: on the CPU as many
/// as its caches are good for, on a GPU the whole batch.
std::int64_t tokens_at_once(const TrainOptions& options, DeviceType device);

/// An option in which two runs differ, and its values as a user would write them.
struct OptionDifference {
  std::string name;  ///< "batch-size"
  std::string before, now;
  bool operator==(const OptionDifference&) const = default;
};
/// The first option that a resumed run has to repeat and does not. `data` is not among them: which
/// dataset it is says its content, not its path.
std::optional<OptionDifference> first_difference(const TrainOptions& before,
                                                 const TrainOptions& now);

/// --checkpoint-every: one of the two, or neither.
struct CheckpointInterval {
  std::int64_t steps = 0;
  std::chrono::milliseconds time{0};
};
/// Reads "500", "10min" or "". Throws Error (usage) that says what it may be.
CheckpointInterval checkpoint_interval_from_string(const std::string& text);

/// When the next checkpoint is due.
class CheckpointDue {
 public:
  explicit CheckpointDue(const CheckpointInterval& interval) : interval_(interval) {}

  bool after(std::int64_t step) const {
    if (interval_.steps > 0) return step % interval_.steps == 0;
    return interval_.time.count() > 0 && Clock::now() - since_ >= interval_.time;
  }
  void begun() { since_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  CheckpointInterval interval_;
  Clock::time_point since_ = Clock::now();
};

}  // namespace serrate
