#pragma once

namespace serrate {

/// The page of to_html (serrate/planner_report.h). @STYLE@, @SCRIPT@, @SUMMARY@ and @DATA@ are
/// replaced; the data is that of --json with the explanations.
extern const char* const kPlanPageTemplate;
extern const char* const kPlanPageStyle;   // CSS
extern const char* const kPlanPageScript;  // JavaScript

}  // namespace serrate
