#include "src/io/text_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "src/io/atomic_file.h"
#include "src/io/output_file.h"

namespace serrate {
namespace {

constexpr std::size_t kLargest = std::size_t{256} << 20;

// What remains of `text` goes to a descriptor in as many pieces as it takes; false with errno set.
bool write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    text.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
  return true;
}

// `shown` is the file as the user knows it.
void write_to(const std::string& path, int flags, const std::string& text,
              const std::string& shown) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0666);
  int error = descriptor < 0 ? errno : 0;
  if (descriptor >= 0) {
    if (!write_all(descriptor, text)) error = errno;
    if (::close(descriptor) != 0 && error == 0) error = errno;
  }
  if (error != 0) {
    throw Error(fmt::format("{} cannot be written ({})", shown, std::strerror(error)));
  }
}

}  // namespace

std::string read_text_file(const std::string& path, ReadErrorKind kind_of) {
  const auto fail = [&](const std::string& why, ErrorKind kind) {
    throw Error(fmt::format("{} cannot be read ({})", path, why), kind);
  };
  const auto fail_call = [&](int error) { fail(std::strerror(error), kind_of(error)); };
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) fail_call(errno);
  std::string text;
  char block[1 << 16];
  ssize_t count = 1;
  int error = 0;
  while (count != 0 && error == 0 && text.size() <= kLargest) {
    count = ::read(descriptor, block, sizeof(block));
    if (count > 0) text.append(block, static_cast<std::size_t>(count));
    if (count < 0 && errno != EINTR) error = errno;
  }
  ::close(descriptor);
  if (error != 0) fail_call(error);
  if (text.size() > kLargest) fail("it is larger than 256 MiB", ErrorKind::kUsage);
  return text;
}

void write_text_file(const std::string& path, const std::string& text) {
  if (is_special(path)) {
    write_to(path, 0, text, path);
    return;
  }
  AtomicFile file(path);
  write_to(file.temporary_path(), O_CREAT | O_TRUNC, text, path);
  file.commit();
}

}  // namespace serrate
