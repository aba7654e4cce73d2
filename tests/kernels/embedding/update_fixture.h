#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/embedding/occurrence.h"
#include "serrate/kernels/embedding_update.h"
#include "tests/kernels/embedding/fixture.h"

namespace serrate {

struct Gradient {
  reference::Bags bags;
  reference::Matrix d_output;
};

class EmbeddingUpdateTest : public EmbeddingTest {
 protected:
  struct DeviceGradient {
    DeviceBags bags;
    TestMatrix d_output;

    DeviceGradient(const Gradient& g, const Stream& stream)
        : bags(g.bags, stream), d_output(g.d_output, stream) {}
    GradientSegment segment() {
      return {bags.indices.span(), bags.offsets.span(), bags.weights.span(), d_output.view()};
    }
  };

  // A table with its optimizer state on the device.
  struct DeviceParameters {
    TestMatrix table, state, second_moment;

    DeviceParameters(const reference::Parameters& p, const Stream& stream)
        : table(p.table, stream), state(p.state, stream), second_moment(p.second_moment, stream) {}
    reference::Parameters to_host(const Stream& stream) const {
      return {table.to_host(stream), state.to_host(stream), second_moment.to_host(stream)};
    }
  };

  static reference::Parameters start(SparseOptimizer type, const reference::Matrix& table) {
    const bool adam = type == SparseOptimizer::kAdam;
    const std::int64_t state_cols = type == SparseOptimizer::kSgd              ? 0
                                    : type == SparseOptimizer::kRowWiseAdagrad ? 1
                                                                               : table.cols;
    return {table, reference::Matrix(table.rows, state_cols),
            reference::Matrix(table.rows, adam ? table.cols : 0)};
  }

  void update(const std::vector<Gradient>& gradients, const SparseOptimizerOptions& optimizer,
              std::int64_t step, DeviceParameters& parameters) {
    std::vector<DeviceGradient> on_device;
    for (const Gradient& g : gradients) on_device.emplace_back(g, stream);
    std::vector<GradientSegment> segments;
    for (DeviceGradient& g : on_device) segments.push_back(g.segment());
    const EmbeddingUpdate args{.table = parameters.table.view(),
                               .state = parameters.state.view(),
                               .second_moment = parameters.second_moment.view(),
                               .segments = segments,
                               .optimizer = optimizer,
                               .step = step};
    group_gradients(segments, args.table.rows, groups, stream);
    embedding_update(args, groups, {}, 0, stream);
    stream.synchronize();
  }

  // A table of one row [1, 2] after one step with the gradient g.
  reference::Parameters step_one_row(SparseOptimizerOptions optimizer,
                                     const std::vector<double>& g) {
    optimizer.learning_rate = 0.5f;
    optimizer.eps = 0;
    DeviceParameters parameters(start(optimizer.type, matrix(1, 2, {1, 2})), stream);
    update({{{{0}, {0, 1}, {}}, matrix(1, 2, g)}}, optimizer, 1, parameters);
    return parameters.to_host(stream);
  }

  RowGroups groups;
};

// An occurrence as a RowGroups has it.
struct Grouped {
  std::int64_t row, segment, bag;
  friend bool operator==(const Grouped&, const Grouped&) = default;
};

inline std::vector<Grouped> grouped(const RowGroups& groups,
                                    std::span<const GradientSegment> segments,
                                    const Stream& stream) {
  const std::vector<std::uint64_t> occurrences = groups.occurrences.to_host(stream);
  std::vector<Grouped> result;
  if (stream.device().type != DeviceType::kCpu) {
    const OccurrenceFormat format = occurrence_format(segments);
    for (const std::uint64_t key : occurrences) {
      result.push_back({format.row(key), format.segment(key), format.bag(key)});
    }
    return result;
  }
  const auto rows = groups.rows.to_host(stream), offsets = groups.row_offsets.to_host(stream);
  for (std::int64_t i = 0; i < groups.num_rows.to_host(stream)[0]; ++i) {
    for (std::int64_t o = offsets[i]; o < offsets[i + 1]; ++o) {
      result.push_back({rows[i], segment_of(occurrences[o]), bag_of(occurrences[o])});
    }
  }
  return result;
}

}  // namespace serrate
