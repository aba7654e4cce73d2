#pragma once

#include <span>
#include <string>

namespace serrate {

/// A file as the user named it: "--data", "d.h5".
struct NamedPath {
  std::string name;
  std::string path;
};

/// Throws Error (usage) naming the two when an output is an input, or another output: the same file
/// through any links. Devices and pipes may be written by several. Empty paths are left out.
void check_outputs(std::span<const NamedPath> inputs, std::span<const NamedPath> outputs);

/// Throws Error (usage) when a file cannot be made or replaced there, before the work for it.
void check_writable(const std::string& path);

/// Where writing to `path` ends: `path`, or what it links to, which need not exist.
std::string follow_links(const std::string& path);

/// Whether it exists and is a device, a pipe or a socket: what is written through, not replaced.
bool is_special(const std::string& path);

}  // namespace serrate
