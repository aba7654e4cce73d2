#pragma once

#include <cstddef>
#include <cstdint>

#include "serrate/any_matrix.h"
#include "serrate/buffer.h"

namespace serrate {

/// Rows that a model keeps, float32 or bfloat16.
class ActivationRows {
 public:
  OutputMatrix resize_discard(std::int64_t rows, std::int64_t cols, DataType type,
                              const Stream& stream) {
    memory_.resize_discard(rows * cols * size_of(type), stream);
    return rows_ = {memory_.device_data(), type, rows, cols};
  }
  const OutputMatrix& rows() { return rows_; }
  std::int64_t bytes() const { return memory_.bytes(); }

 private:
  Buffer<std::byte> memory_;
  OutputMatrix rows_;
};

}  // namespace serrate
