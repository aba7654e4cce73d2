#pragma once

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include "tests/kernels/attention/masks.h"

namespace serrate {

/// Masks that differ in what they say of tiles and pairs, for kernels that meet full and causal
/// ones in their other tests; for one kernel there is a test of all of them.
inline constexpr MaskKind kDistinctMasks[] = {
    MaskKind::kWindow, MaskKind::kPrefix,    MaskKind::kRows, MaskKind::kColumns,
    MaskKind::kBlocks, MaskKind::kDocuments, MaskKind::kHstu};

inline std::string name_of_mask(const testing::TestParamInfo<std::tuple<Device, MaskKind>>& test) {
  return to_string(std::get<MaskKind>(test.param));
}

}  // namespace serrate
