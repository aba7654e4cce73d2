#include "src/io/text_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/iostreams/categories.hpp>
#include <boost/iostreams/filter/gzip.hpp>
#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filtering_streambuf.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "serrate/error.h"

namespace serrate {
namespace {

namespace io = boost::iostreams;

constexpr std::streamsize kBlockBytes = 64 << 10;
constexpr std::size_t kMagicBytes = 6;

/// A file and its first bytes, which were read to tell how it is packed and are read again. Opened
/// once, so that a pipe will do.
struct OpenFile {
  std::string path;
  int descriptor = -1;
  std::string first = {};
  std::size_t first_read = 0;

  ~OpenFile() {
    if (descriptor >= 0) ::close(descriptor);
  }

  /// 0 at the end; goes on after a signal.
  std::size_t read(char* data, std::size_t size) {
    for (;;) {
      const ssize_t n = ::read(descriptor, data, size);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno != EINTR) {
        throw Error(fmt::format("cannot read {} ({})", path, std::strerror(errno)));
      }
    }
  }

  void read_first() {
    first.resize(kMagicBytes);
    std::size_t size = 0, n = 0;
    while (size < kMagicBytes && (n = read(first.data() + size, kMagicBytes - size)) > 0) size += n;
    first.resize(size);
  }
};

/// An OpenFile as Boost.Iostreams wants it: copies refer to one file.
struct FileSource {
  using char_type = char;
  using category = io::source_tag;

  std::streamsize read(char* data, std::streamsize size) {
    const std::size_t left = file->first.size() - file->first_read;
    std::size_t n = std::min(left, static_cast<std::size_t>(size));
    std::copy_n(file->first.data() + file->first_read, n, data);
    file->first_read += n;
    if (n == 0) n = file->read(data, static_cast<std::size_t>(size));
    return n > 0 ? static_cast<std::streamsize>(n) : -1;
  }

  OpenFile* file;
};

}  // namespace

struct TextInput::Impl {
  OpenFile file;
  io::filtering_streambuf<io::input> stream;  // reads the file
};

TextInput::TextInput(const std::string& path) : impl_(std::make_unique<Impl>()) {
  OpenFile& file = impl_->file;
  file.path = path;
  file.descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.descriptor < 0 || std::filesystem::is_directory(path)) {
    throw usage_error(fmt::format("cannot read {} ({})", path,
                                  file.descriptor < 0 ? std::strerror(errno) : "it is a folder"));
  }
  file.read_first();
  if (file.first.starts_with("\x1f\x8b")) {
    impl_->stream.push(io::gzip_decompressor(io::gzip::default_window_bits, kBlockBytes));
  } else if (file.first == std::string("\xfd\x37zXZ\0", kMagicBytes)) {
    impl_->stream.push(io::lzma_decompressor(kBlockBytes));
  }
  impl_->stream.push(FileSource{&file}, kBlockBytes);
}

TextInput::~TextInput() = default;

std::size_t TextInput::read(char* data, std::size_t size) {
  try {
    return static_cast<std::size_t>(impl_->stream.sgetn(data, static_cast<std::streamsize>(size)));
  } catch (const Error&) {
    throw;  // the file cannot be read; what it holds is not to blame
  } catch (const std::exception& error) {
    throw usage_error(fmt::format("cannot read all of {} (damaged or cut off: {}): get it again",
                                  impl_->file.path, error.what()));
  }
}

}  // namespace serrate
