#include "tests/fuzz/check_planner_files.h"

#include <cstdio>
#include <cstdlib>

#include "serrate/error.h"
#include "serrate/planner.h"

namespace serrate {
namespace {

template <typename Read, typename Write>
void check_reader(const char* name, const std::string& text, const Read& read, const Write& write) {
  const auto fail = [&](const char* problem, const std::string& detail) {
    std::fprintf(stderr, "%s: %s: %s\n", name, problem, detail.c_str());
    std::abort();
  };
  std::string written;
  try {
    written = write(read(text));
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::kUsage) fail("not the reader's user to blame", error.what());
    return;
  } catch (const std::exception& error) {
    fail("not an Error", error.what());
  }
  try {
    const std::string again = write(read(written));
    if (again != written) fail("written otherwise", written + again);
  } catch (const std::exception& error) {
    fail("does not read what it wrote", error.what() + written);
  }
}

}  // namespace

void check_planner_files(const std::string& text) {
  check_reader("model", text, planner_model_from_json, planner_model_to_json);
  check_reader("topology", text, planner_topology_from_json, planner_topology_to_json);
  check_reader("plan", text, plan_from_json, plan_to_json);
}

}  // namespace serrate
