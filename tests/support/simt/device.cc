#include "tests/support/simt/device.h"

#include <algorithm>
#include <cstdlib>

namespace simt {
namespace {

thread_local int current = 0;

}  // namespace

int num_devices() {
  static const int number = [] {
    const char* text = std::getenv("SERRATE_SIMT_DEVICES");
    return std::clamp(text ? std::atoi(text) : 1, 1, kMostDevices);
  }();
  return number;
}

int current_device() {
  return current;
}

void set_current_device(int device) {
  current = device;
}

}  // namespace simt
