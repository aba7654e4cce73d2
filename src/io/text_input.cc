#include "src/io/text_input.h"

#include <fmt/format.h>

#include <boost/iostreams/device/file_descriptor.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "serrate/error.h"

namespace serrate {
namespace {

namespace io = boost::iostreams;

constexpr std::streamsize kBlockBytes = 256 << 10;

std::string first_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path)) {
    throw usage_error(
        fmt::format("cannot read {} ({})", path, file ? "it is a folder" : std::strerror(errno)));
  }
  std::string bytes(6, '\0');
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

}  // namespace

struct TextInput::Impl {
  std::string path;
  io::filtering_streambuf<io::input> stream;
};

TextInput::TextInput(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  const std::string magic = first_bytes(path);
  if (magic.starts_with("\x1f\x8b")) {
    impl_->stream.push(io::gzip_decompressor(io::gzip::default_window_bits, kBlockBytes));
  } else if (magic == std::string("\xfd\x37zXZ\0", 6)) {
    impl_->stream.push(io::lzma_decompressor(kBlockBytes));
  }
  impl_->stream.push(io::file_descriptor_source(path), kBlockBytes);
}

TextInput::~TextInput() = default;

std::size_t TextInput::read(char* data, std::size_t size) {
  try {
    return static_cast<std::size_t>(impl_->stream.sgetn(data, static_cast<std::streamsize>(size)));
  } catch (const std::exception& error) {
    throw usage_error(fmt::format("cannot read all of {} (damaged or cut off: {}) get it again",
                                  impl_->path, error.what()));
  }
}

}  // namespace serrate
