#include "src/embedding/check_ids.h"

#include <fmt/format.h>

#include <algorithm>

#include "serrate/error.h"
#include "serrate/kernels/bucketize.h"

namespace serrate {
namespace {

Error invalid_id_error(const JaggedView& bags, std::int64_t position, const std::string& feature,
                       const EmbeddingTable& table, const Stream& stream) {
  std::int64_t id = 0;
  std::vector<std::int64_t> offsets(bags.offsets.size());
  copy(bags.values.subspan(position, 1), std::span(&id, 1), stream);
  copy(bags.offsets, std::span(offsets), stream);
  stream.synchronize();
  const auto end = std::upper_bound(offsets.begin(), offsets.end(), offsets[0] + position);
  const auto bag = end - offsets.begin() - 1;
  return usage_error(fmt::format(
      "feature \"{}\": sample (bag) {} has id {} at position {}, but table \"{}\" has {} rows "
      "(ids are 0 to {}) correct the data, enlarge the table, or drop such ids or send "
      "them to the last row (invalid ids: drop, oov)",
      feature, bag, id, offsets[0] + position - offsets[bag], table.name, table.num_rows,
      table.num_rows - 1));
}

}  // namespace

JaggedView check_ids(const JaggedView& bags, const std::string& feature,
                     const EmbeddingTable& table, InvalidIds policy, ValidIds& valid,
                     std::int64_t& count, const Stream& stream) {
  const std::int64_t position = find_invalid_id(bags.values, table.num_rows, stream);
  if (position < 0) return bags;
  switch (policy) {
    case InvalidIds::kDrop:
      count += drop_invalid_ids(bags, table.num_rows, valid, stream);
      return valid.view();
    case InvalidIds::kOov:
      count += replace_invalid_ids(bags.values, table.num_rows, table.num_rows - 1,
                                   valid.values.resize_discard(bags.num_values(), stream), stream);
      return {valid.values.span(), bags.offsets, bags.weights};
    default:
      throw invalid_id_error(bags, position, feature, table, stream);
  }
}

}  // namespace serrate
