#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace serrate {

/// A file of a checkpoint as its manifest has it.
struct ManifestFile {
  std::string name;  // rank<r>.h5
  std::int64_t bytes = 0;
  std::uint32_t crc32c = 0;
};

/// MANIFEST.json of a checkpoint: written last, so a checkpoint that has one is complete.
struct Manifest {
  std::int64_t step = 0;
  std::vector<ManifestFile> files;
};

std::string to_json(const ManifestFile& file);
ManifestFile manifest_file_from_json(const std::string& json);

/// Reads the file for its size and CRC32C.
ManifestFile describe_file(const std::string& path);

/// Writes `checkpoint`/MANIFEST.json and flushes it to disk.
void write_manifest(const std::string& checkpoint, const Manifest& manifest);
/// Error (usage) when it is missing or malformed.
Manifest read_manifest(const std::string& checkpoint);

struct FoundCheckpoint {
  std::string path;
  std::int64_t step = 0;
};

/// The step_N folders of a directory, newest first.
std::vector<FoundCheckpoint> list_checkpoints(const std::string& directory);
/// The newest one whose files all have the manifest's size and checksum; those passed over are
/// named on stderr. Error (usage) when there is none.
FoundCheckpoint newest_intact_checkpoint(const std::string& directory);

}  // namespace serrate
