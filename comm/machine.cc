#include "comm/machine.h"

#include <unistd.h>

#include <array>
#include <fstream>

namespace serrate {

std::string machine_identity() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  if (!id.empty()) return id;
  std::array<char, 256> name{};
  gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace serrate
