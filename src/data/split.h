#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/dataset.h"

namespace serrate {

enum class SplitKind { kLastItem, kLastBasket, kTime };

/// "last-item", "last-basket" or "time"; throws Error (usage) naming the three.
SplitKind split_kind_from_string(std::string_view name);
std::string to_string(SplitKind kind);

/// Predict the item of event `target_event` from the events [history_begin, history_end).
struct EvaluationCase {
  std::int64_t user = 0;
  std::int64_t history_begin = 0;
  std::int64_t history_end = 0;
  std::int64_t target_event = 0;
};

/// What is trained on and what is held out; events between train_end and a user's last are held
/// out and never read by the training.
struct Split {
  std::vector<std::int64_t> train_end;  ///< [num_users]: user u trains on [user_offsets[u], here)
  std::vector<EvaluationCase> cases;    ///< one a user at most, in the order of users
};

/// * last-item: the target is a user's last event, the history everything before it.
/// * last-basket: the target is the first event of the last basket; the whole basket is held out.
///   A basket is the events that share user and basket number or, in a dataset without baskets,
///   user and timestamp.
/// * time: every event from a point in time on is held out; the target is a user's first such
///   event. The time is that of the event with `time_quantile` of all events before it.
/// Users without a history before their target are not evaluated. Reads the file in chunks.
Split make_split(const Dataset& dataset, SplitKind kind, double time_quantile = 0.9);

}  // namespace serrate
