#include "src/io/text_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "serrate/error.h"
#include "src/io/atomic_file.h"

namespace serrate {

std::string read_text_file(const std::string& path) {
  std::ifstream input(path, std::ios::binary);
  input.peek();  // finds out about folders; the end of an empty file is no error
  std::ostringstream text;
  if (input.good()) text << input.rdbuf();
  if (!input.is_open() || input.bad() || !text) {
    throw usage_error(fmt::format("{} cannot be read ({})", path, std::strerror(errno)));
  }
  return text.str();
}

void write_text_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  std::ofstream output(file.temporary_path(), std::ios::binary);
  output << text;
  output.close();
  if (!output) {
    throw Error(fmt::format("{} cannot be written ({})", path, std::strerror(errno)));
  }
  file.commit();
}

}  // namespace serrate
