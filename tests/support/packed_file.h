#pragma once

#include <boost/iostreams/filter/lzma.hpp>
#include <boost/iostreams/filter/zlib.hpp>
#include <boost/iostreams/filtering_stream.hpp>
#include <sstream>
#include <string>

namespace serrate::testing {

template <typename Compressor>
std::string packed(const std::string& text, const Compressor& compressor) {
  std::ostringstream result;
  boost::iostreams::filtering_ostream stream;
  stream.push(compressor);
  stream.push(result);
  stream << text;
  stream.reset();
  return result.str();
}

inline std::string gzip(const std::string& text) {
  boost::iostreams::zlib_params params;
  params.window_bits = 15 + 16;  // zlib's way to ask for a gzip header and trailer
  return packed(text, boost::iostreams::zlib_compressor(params));
}

inline std::string xz(const std::string& text) {
  return packed(text, boost::iostreams::lzma_compressor());
}

}  // namespace serrate::testing
