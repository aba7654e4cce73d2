#include "tests/support/simt/device.h"

#include <algorithm>
#include <cstdio>
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

const Architecture& architecture() {
  static const Architecture found = [] {
    const char* text = std::getenv("SERRATE_SIMT_ARCH");
    const int number = text ? std::atoi(text) : 90;
    constexpr std::size_t kKiB = 1024;
    for (const Architecture& a :
         {Architecture{8, 0, 163 * kKiB}, Architecture{8, 6, 99 * kKiB},
          Architecture{8, 9, 99 * kKiB}, Architecture{9, 0, 227 * kKiB},
          Architecture{10, 0, 227 * kKiB}, Architecture{12, 0, 99 * kKiB}}) {
      if (10 * a.major + a.minor == number) return a;
    }
    std::fprintf(stderr, "simt: SERRATE_SIMT_ARCH=%s is none of 80, 86, 89, 90, 100, 120\n", text);
    std::abort();
  }();
  return found;
}

int current_device() {
  return current;
}

void set_current_device(int device) {
  current = device;
}

}  // namespace simt
