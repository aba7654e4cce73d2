#pragma once

#include <string>

#include "serrate/planner_report.h"

namespace serrate {

/// Why the model's constraints keep a table from a kernel; empty when they do not.
std::string why_excluded(const PlannerTable& table, ComputeKernel kernel);

/// The table of that name. Throws Error (usage) when there is none.
const PlannerTable& find_table(const PlannerModel& model, const std::string& name);

/// The same table or of one group: their type, kernel and ranks change together.
bool are_together(const PlannerTable& a, const PlannerTable& b);

}  // namespace serrate
