#include "tests/fuzz/check_planner_files.h"

#include "serrate/planner.h"
#include "tests/fuzz/verdict.h"

namespace serrate {
namespace {

template <typename Read, typename Write>
void check_document(const std::string& text, const Read& read, const Write& write) {
  const auto in_own_words = [&](const std::string& from) { return write(read(from)); };
  check_reader([&] { return in_own_words(text); }, in_own_words);
}

}  // namespace

void check_planner_files(const std::string& text) {
  check_document(text, planner_model_from_json, planner_model_to_json);
  check_document(text, planner_topology_from_json, planner_topology_to_json);
  check_document(text, plan_from_json, plan_to_json);
}

}  // namespace serrate
