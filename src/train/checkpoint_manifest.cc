#include "src/train/checkpoint_manifest.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/crc.hpp>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "serrate/error.h"
#include "src/io/text_file.h"

namespace serrate {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr int kFormatVersion = 1;
constexpr const char* kManifest = "/MANIFEST.json";

Json json_of(const ManifestFile& file) {
  return {{"name", file.name}, {"bytes", file.bytes}, {"crc32c", file.crc32c}};
}

// Only names this program gives, so that a manifest cannot point outside its folder.
ManifestFile manifest_file(const Json& json) {
  const ManifestFile file{json.at("name").get<std::string>(), json.at("bytes").get<std::int64_t>(),
                          json.at("crc32c").get<std::uint32_t>()};
  const bool ours = file.name.starts_with("rank") && file.name.ends_with(".h5") &&
                    file.name.find('/') == std::string::npos;
  if (!ours) throw usage_error(fmt::format("file name \"{}\" in a manifest", file.name));
  return file;
}

void verify(const FoundCheckpoint& checkpoint) {
  const Manifest manifest = read_manifest(checkpoint.path);
  if (manifest.step != checkpoint.step) {
    throw usage_error(fmt::format("its manifest is of step {}", manifest.step));
  }
  for (const ManifestFile& expected : manifest.files) {
    const ManifestFile found = describe_file(checkpoint.path + "/" + expected.name);
    if (found.bytes != expected.bytes || found.crc32c != expected.crc32c) {
      throw usage_error(fmt::format("{} has {} bytes and CRC32C {:08x}, written were {} and {:08x}",
                                    expected.name, found.bytes, found.crc32c, expected.bytes,
                                    expected.crc32c));
    }
  }
}

}  // namespace

std::string to_json(const ManifestFile& file) {
  return json_of(file).dump();
}

ManifestFile manifest_file_from_json(const std::string& json) {
  return manifest_file(Json::parse(json));
}

ManifestFile describe_file(const std::string& path) {
  std::ifstream input(path, std::ios::binary);
  if (!input) throw usage_error(fmt::format("{} cannot be read", path));
  // CRC-32C (Castagnoli), as iSCSI and ext4 use it.
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  std::vector<char> block(1 << 20);
  std::int64_t bytes = 0;
  while (input) {
    input.read(block.data(), static_cast<std::streamsize>(block.size()));
    crc.process_bytes(block.data(), static_cast<std::size_t>(input.gcount()));
    bytes += input.gcount();
  }
  return {fs::path(path).filename(), bytes, crc.checksum()};
}

void write_manifest(const std::string& checkpoint, const Manifest& manifest) {
  Json files = Json::array();
  for (const ManifestFile& file : manifest.files) files.push_back(json_of(file));
  const Json json{{"format", "serrate-checkpoint"},
                  {"version", kFormatVersion},
                  {"step", manifest.step},
                  {"files", files}};
  write_text_file(checkpoint + kManifest, json.dump(2) + "\n");
}

Manifest read_manifest(const std::string& checkpoint) {
  const std::string path = checkpoint + kManifest;
  std::ifstream input(path);
  if (!input)
    throw usage_error(fmt::format("{} is missing (the checkpoint is not complete)", path));
  try {
    const Json json = Json::parse(input);
    if (json.at("format") != "serrate-checkpoint" || json.at("version") != kFormatVersion) {
      throw usage_error(fmt::format("{}: not a version {} checkpoint", path, kFormatVersion));
    }
    Manifest manifest{.step = json.at("step").get<std::int64_t>(), .files = {}};
    for (const Json& entry : json.at("files")) manifest.files.push_back(manifest_file(entry));
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    throw usage_error(fmt::format("{} is malformed ({})", path, error.what()));
  }
}

std::vector<FoundCheckpoint> list_checkpoints(const std::string& directory) {
  constexpr std::string_view kPrefix = "step_";
  std::vector<FoundCheckpoint> found;
  std::error_code ignored;  // no directory: no checkpoints
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    const std::string name = entry.path().filename();
    std::int64_t step = 0;
    const char* const end = name.data() + name.size();
    if (!name.starts_with(kPrefix)) continue;
    if (std::from_chars(name.data() + kPrefix.size(), end, step).ptr != end) continue;
    found.push_back({entry.path(), step});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.step > b.step; });
  return found;
}

FoundCheckpoint newest_intact_checkpoint(const std::string& directory) {
  for (const FoundCheckpoint& checkpoint : list_checkpoints(directory)) {
    try {
      verify(checkpoint);
      return checkpoint;
    } catch (const Error& error) {
      spdlog::warn("passing over {} ({})", checkpoint.path, error.what());
    }
  }
  throw usage_error(fmt::format("{}: no intact checkpoint (train with --output first)", directory));
}

}  // namespace serrate
