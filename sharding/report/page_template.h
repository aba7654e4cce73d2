#pragma once

namespace serrate {

/// The page of to_html (serrate/planner_report.h) before the plan is put in.
extern const char* const kPlanPageTemplate;

}  // namespace serrate
