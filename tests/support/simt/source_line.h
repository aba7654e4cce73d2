#pragma once

#include <cstdint>
#include <string>

#include "tests/support/simt/findings.h"

namespace simt {

/// Where an address of this program's code lies in the sources, by addr2line and debug information.
struct SourceLine {
  Place place;           // the innermost line
  std::string function;  // the outermost function, demangled, without its parameters
  std::string chain;     // "row_vector.cuh:21, inlined in embedding_lookup_cuda.cu:43"
};

SourceLine source_line(std::uintptr_t code);

/// The name of a function: "pool_bags<4>", without namespaces and parameters.
std::string function_name(const void* function);

/// What the program was loaded at, and the range of its variables (.data and .bss).
struct Program {
  std::uintptr_t base, data_begin, data_end, begin, end;
};
Program find_program();
inline const Program& program() {
  static const Program instance = find_program();
  return instance;
}

}  // namespace simt
