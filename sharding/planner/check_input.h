#pragma once

#include "serrate/planner.h"

namespace serrate {

/// Throws Error (usage), naming table or field, when model or topology make no sense.
void check_planner_input(const PlannerModel& model, const PlannerTopology& topology);

}  // namespace serrate
