#include "src/run/checkpoint.h"

#include <fmt/format.h>

#include "src/core/option.h"
#include "src/run/options.h"

namespace serrate {
namespace {

constexpr const char* kDigest = "dataset";

std::string text_name(const Option& option) {
  return "option." + option.name;
}

DeviceMatrix<float> view(DeviceSpan<float> buffer, const ParameterSlice& slice) {
  return {buffer.subspan(slice.offset), slice.rows, slice.cols};
}

}  // namespace

std::map<std::string, std::string> to_texts(const RunDescription& run) {
  std::map<std::string, std::string> texts{{kDigest, run.dataset_digest}};
  TrainOptions fields = run.options;
  for (const Option& option : option_table(fields)) {
    if (option.is_stored) texts[text_name(option)] = option.text();
  }
  return texts;
}

RunDescription run_from_texts(const std::map<std::string, std::string>& texts,
                              const std::string& directory) {
  const auto find = [&](const std::string& name) {
    const auto found = texts.find(name);
    if (found != texts.end()) return found->second;
    throw usage_error(
        fmt::format("{}: its checkpoint has no \"{}\" (it is not one of `serrate train`, or of "
                    "another version of it)",
                    directory, name));
  };
  RunDescription run{.options = {}, .dataset_digest = find(kDigest)};
  for (const Option& option : option_table(run.options)) {
    if (!option.is_stored) continue;
    if (option.is_newer && !texts.contains(text_name(option))) continue;
    try {
      option.set(find(text_name(option)));
    } catch (const Error& error) {
      throw usage_error(fmt::format("{}: the checkpoint's \"{}\": {}", directory, text_name(option),
                                    error.what()));
    }
  }
  return run;
}

void check_same_run(const RunDescription& saved, const RunDescription& now) {
  if (const auto found = first_difference(saved.options, now.options)) {
    throw usage_error(fmt::format(
        "--{} is {}, but the run in {} was begun with {} (it decides what the model is or the "
        "order of the data): resume with the same, or begin anew with --fresh or another --output",
        found->name, found->now, now.options.output, found->before));
  }
  check_same_dataset(saved, now);
}

void check_same_dataset(const RunDescription& saved, const RunDescription& now) {
  if (saved.dataset_digest == now.dataset_digest) return;
  throw usage_error(
      fmt::format("--data {} has the digest {}, but the run was trained on {} with the digest {} "
                  "(it is another dataset, or one that was made again): give the dataset of the "
                  "run",
                  now.options.data, now.dataset_digest, saved.options.data, saved.dataset_digest));
}

CheckpointState checkpoint_state(TrainState& state) {
  DenseParameters& dense = state.encoder.parameters();
  std::vector<CheckpointTensor> tensors;
  for (const ParameterSlice& slice : dense.slices()) {
    tensors.push_back({slice.name, view(dense.values(), slice)});
    tensors.push_back({slice.name + ".first_moment", view(dense.first_moment(), slice)});
    tensors.push_back({slice.name + ".second_moment", view(dense.second_moment(), slice)});
  }
  return {.embedding = state.embedding, .tensors = std::move(tensors), .integers = {}, .texts = {}};
}

CheckpointState weights_of(TrainState& state) {
  DenseParameters& dense = state.encoder.parameters();
  std::vector<CheckpointTensor> tensors;
  for (const ParameterSlice& slice : dense.slices()) {
    tensors.push_back({slice.name, view(dense.values(), slice)});
  }
  return {.embedding = state.embedding, .tensors = std::move(tensors), .integers = {}, .texts = {}};
}

}  // namespace serrate
