#include "tests/fuzz/check_manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstdio>
#include <cstdlib>

#include "serrate/error.h"
#include "src/checkpoint/manifest.h"

namespace serrate {
namespace {

[[noreturn]] void fail(const char* problem, const std::string& detail) {
  std::fprintf(stderr, "%s: %s\n", problem, detail.c_str());
  std::abort();
}

/// As docs/checkpoint_format.md has it.
std::string with_checksum(const std::string& text) {
  return fmt::format("{},\n  \"checksum\": \"{:016x}\"\n}}\n", text,
                     XXH3_64bits(text.data(), text.size()));
}

void check_text(const std::string& text) {
  std::string written;
  try {
    written = manifest_to_json(manifest_from_json(text, "MANIFEST.json"));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) fail("not the file to blame", error.what());
    return;
  } catch (const std::exception& error) {
    fail("not an Error", error.what());
  }
  try {
    if (manifest_to_json(manifest_from_json(written, "again")) != written) {
      fail("written otherwise", written);
    }
  } catch (const std::exception& error) {
    fail(error.what(), written);
  }
}

}  // namespace

void check_manifest(const std::string& text) {
  check_text(text);
  check_text(with_checksum(text));
}

}  // namespace serrate
