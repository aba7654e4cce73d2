#pragma once

#include <nccl.h>

#include <cstdint>
#include <vector>

namespace simt {

/// Bytes of an element.
std::size_t size_of(ncclDataType_t type);

/// `count` elements that the ranks' parts are reduced to: from another rank on for each stretch of
/// 32, as rings do, and rounded after each step as values of their type.
void reduce(const std::vector<const std::uint8_t*>& parts, std::uint8_t* to, std::size_t count,
            ncclDataType_t type, ncclRedOp_t op);

}  // namespace simt
