#include "tests/fuzz/check_manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "src/checkpoint/manifest.h"
#include "tests/fuzz/verdict.h"

namespace serrate {
namespace {

/// As docs/checkpoint_format.md has it.
std::string with_checksum(const std::string& text) {
  return fmt::format("{},\n  \"checksum\": \"{:016x}\"\n}}\n", text,
                     XXH3_64bits(text.data(), text.size()));
}

void check_text(const std::string& text) {
  const auto read = [](const std::string& from) {
    return manifest_to_json(manifest_from_json(from, "MANIFEST.json"));
  };
  check_reader([&] { return read(text); }, read);
}

}  // namespace

void check_manifest(const std::string& text) {
  check_text(text);
  check_text(with_checksum(text));
}

}  // namespace serrate
