#include "serrate/rank_device.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "comm/machine.h"
#include "comm/together.h"
#include "src/core/gpus.h"

namespace serrate {
namespace {

std::string to_string(const DeviceChoice& choice) {
  return choice.index ? serrate::to_string(Device::cuda(*choice.index)) : "cuda";
}

void require_gpu(const DeviceChoice& choice, const Gpus& gpus) {
  const std::string name = to_string(choice);
  if (gpus.addresses.empty()) {
    throw usage_error(fmt::format(
        "there is no GPU for the device {} ({}): use cpu, or a build with CUDA on a machine "
        "with a GPU",
        name, gpus.why_none));
  }
  const auto count = std::ssize(gpus.addresses);
  if (choice.index.value_or(0) < count) return;
  throw usage_error(
      fmt::format("there is no device {} (the last GPU here is cuda:{}): give "
                  "another number, or cuda alone, which assigns GPUs to ranks in turn",
                  name, count - 1));
}

}  // namespace

DeviceChoice device_choice_from_string(const std::string& text) {
  using Kind = DeviceChoice::Kind;
  if (text == "auto") return {Kind::kAuto};
  if (text == "cpu") return {Kind::kCpu};
  if (text == "cuda") return {Kind::kCuda};
  constexpr std::string_view kPrefix = "cuda:";
  int index = -1;
  if (text.starts_with(kPrefix)) {
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data() + kPrefix.size(), end, index);
    if (error != std::errc() || rest != end) index = -1;
  }
  if (index < 0) {
    throw usage_error(fmt::format("the device is \"{}\" (must be auto|cpu|cuda|cuda:N)", text));
  }
  return {Kind::kCuda, index};
}

Device choose_device(const DeviceChoice& choice, Communicator& communicator) {
  using Kind = DeviceChoice::Kind;
  if (choice.kind == Kind::kCpu) return Device::cpu();
  Gpus gpus;
  together(communicator, "device", [&] {
    gpus = find_gpus();
    if (choice.kind == Kind::kCuda) require_gpu(choice, gpus);
  });
  if (choice.index) return Device::cuda(*choice.index);
  // A launcher may have given each rank a GPU of its own, which then is its cuda:0.
  const auto count = std::ssize(gpus.addresses);
  const auto seen = communicator.gather_strings(
      "GPUs of ranks", fmt::format("{} {}", machine_identity(), fmt::join(gpus.addresses, " ")));
  const auto own = seen.begin() + communicator.rank();
  if (choice.kind == Kind::kAuto) {
    const auto spare =
        communicator.gather_int64("GPUs to spare", count - std::ranges::count(seen, *own));
    if (std::ranges::min(spare) < 0) return Device::cpu();
  }
  return Device::cuda(static_cast<int>(std::count(seen.begin(), own, *own) % count));
}

}  // namespace serrate
