// Linked into every test on the simulated device: a test in which the device found something, or
// that leaves memory, streams or events behind, fails.
#include "tests/support/simt/test_environment.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/simt/findings.h"
#include "tests/support/simt/library.h"

namespace simt {
namespace {

class DeviceListener : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo&) override {
    before_ = live_objects();
    objects_before_ = live_library_objects().size();
  }

  void OnTestEnd(const testing::TestInfo&) override {
    const LiveObjects after = live_objects();
    std::vector<std::uint64_t> leaked;
    std::set_difference(after.allocations.begin(), after.allocations.end(),
                        before_.allocations.begin(), before_.allocations.end(),
                        std::back_inserter(leaked));
    for (const std::uint64_t number : leaked) {
      ADD_FAILURE() << "simt: leak: device allocation " << number << " was not freed";
    }
    if (after.streams > before_.streams || after.events > before_.events) {
      ADD_FAILURE() << "simt: leak: " << after.streams - before_.streams << " streams and "
                    << after.events - before_.events << " events were not destroyed";
    }
    if (live_library_objects().size() > objects_before_) {
      for (const std::string& what : live_library_objects()) {
        ADD_FAILURE() << "simt: leak: " << what << " was not destroyed";
      }
    }
    for (const Finding& finding : take_findings()) {
      ADD_FAILURE() << "simt: " << to_string(finding.kind) << ": " << finding.text;
    }
  }

  LiveObjects before_;
  std::size_t objects_before_ = 0;
};

[[maybe_unused]] const bool registered = [] {
  testing::UnitTest::GetInstance()->listeners().Append(new DeviceListener);
  return true;
}();

}  // namespace
}  // namespace simt
