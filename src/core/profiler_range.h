#pragma once

namespace serrate {

/// A range on a profiler's timeline (NVTX), of this thread and what it queues, to the end of the
/// scope; ranges nest. Named as the stages of docs/architecture.md. Costs some nanoseconds where no
/// profiler listens, and nothing in a build without CUDA or its NVTX headers.
class ProfilerRange {
 public:
  explicit ProfilerRange(const char* name);
  ~ProfilerRange();
  ProfilerRange(const ProfilerRange&) = delete;
  ProfilerRange& operator=(const ProfilerRange&) = delete;
};

}  // namespace serrate
