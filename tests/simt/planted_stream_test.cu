// Planted bugs: streams, events, copies and memory in stream order.
#include "tests/simt/planted_bug.h"
#include "tests/support/simt/test_environment.h"

namespace simt {
namespace {

const std::string kFile = "planted_stream_test.cu";

__global__ void fill(float* x, int size, float value) {
  for (auto i = static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x)) {
    x[i] = value;  // bug: fill
  }
}

__global__ void copy(float* to, const float* from, int size) {
  for (auto i = static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x)) {
    to[i] = from[i];  // bug: copy
  }
}

class PlantedStream : public testing::Test {
 protected:
  PlantedStream() {
    cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  }
  ~PlantedStream() override {
    cudaEventDestroy(event);
    cudaStreamDestroy(first);
    cudaStreamDestroy(second);
  }

  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t event = nullptr;
};

TEST_F(PlantedStream, ReadInAnotherStream) {
  const Array<float> x(64), y(64);
  const auto chain = [&](bool with_event) {
    run(fill, 1, 32, 0, first, x.data(), 64, 2.0f);
    cudaEventRecord(event, first);
    if (with_event) cudaStreamWaitEvent(second, event);
    run(copy, 1, 32, 0, second, y.data(), x.data(), 64);
  };
  chain(true);
  expect_nothing_found();
  EXPECT_EQ(y.host(), std::vector<float>(64, 2.0f));
  chain(false);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kStreamRace)));
  EXPECT_NE(findings[0].text.find("kernel fill"), std::string::npos);
}

// The event is recorded before the work that it should cover.
TEST_F(PlantedStream, EventRecordedTooEarly) {
  const Array<float> x(std::vector<float>(64)), y(64);
  cudaEventRecord(event, first);
  run(fill, 1, 32, 0, first, x.data(), 64, 2.0f);
  cudaStreamWaitEvent(second, event);
  run(copy, 1, 32, 0, second, y.data(), x.data(), 64);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kStreamRace)));
}

TEST_F(PlantedStream, TheHostOrdersStreamsToo) {
  const Array<float> x(64), y(64);
  run(fill, 1, 32, 0, first, x.data(), 64, 2.0f);
  cudaStreamSynchronize(first);
  run(copy, 1, 32, 0, second, y.data(), x.data(), 64);
  expect_nothing_found();
}

TEST_F(PlantedStream, MemsetAgainstKernel) {
  const Array<float> x(std::vector<float>(64));
  run(fill, 1, 32, 0, first, x.data(), 64, 2.0f);
  cudaMemsetAsync(x.data(), 0, 256, first);
  expect_nothing_found();
  run(fill, 1, 32, 0, first, x.data(), 64, 2.0f);
  cudaMemsetAsync(x.data(), 0, 256, second);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kStreamRace)));
}

TEST_F(PlantedStream, UseBeforeTheAllocation) {
  float* x = nullptr;
  const auto use = [&](bool with_event) {
    cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
    cudaEventRecord(event, first);
    if (with_event) cudaStreamWaitEvent(second, event);
    run(fill, 1, 32, 0, second, x, 64, 1.0f);
    cudaStreamSynchronize(second);
    cudaFreeAsync(x, second);
  };
  use(true);
  expect_nothing_found();
  use(false);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kNotOrdered)));
  EXPECT_EQ(findings[0].kernel, "fill");
  EXPECT_EQ(lines_of_bug(kFile, "fill"), std::set{findings[0].place.line});
}

TEST_F(PlantedStream, FreeWhileAnotherStreamUses) {
  float* x = nullptr;
  const auto use = [&](bool with_event) {
    cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
    cudaStreamSynchronize(first);
    run(fill, 1, 32, 0, second, x, 64, 1.0f);
    cudaEventRecord(event, second);
    if (with_event) cudaStreamWaitEvent(first, event);
    cudaFreeAsync(x, first);
  };
  use(true);
  expect_nothing_found();
  use(false);
  // Whichever the schedule runs first.
  for (const Finding& finding : found()) {
    EXPECT_TRUE(finding.kind == Kind::kNotOrdered || finding.kind == Kind::kUseAfterFree)
        << finding.text;
    x = nullptr;
  }
  EXPECT_EQ(x, nullptr) << "nothing was found";
}

TEST_F(PlantedStream, UseAfterTheFreeInItsStream) {
  float* x = nullptr;
  cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
  run(fill, 1, 32, 0, first, x, 64, 1.0f);
  cudaFreeAsync(x, first);
  expect_nothing_found();
  run(fill, 1, 32, 0, first, x, 64, 1.0f);
  expect_found({Kind::kUseAfterFree, "fill", any_of(32), kFile, "fill"});
}

TEST_F(PlantedStream, FreedTwice) {
  float* x = nullptr;
  cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
  cudaFreeAsync(x, first);
  EXPECT_EQ(cudaFreeAsync(x, first), cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "is freed twice");
}

TEST_F(PlantedStream, FreeOfAnAddressInside) {
  float* x = nullptr;
  cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
  EXPECT_EQ(cudaFreeAsync(x + 1, first), cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "is no allocation");
  cudaFreeAsync(x, first);
}

TEST_F(PlantedStream, DestroyedStream) {
  float* x = nullptr;
  cudaStream_t gone = nullptr;
  cudaStreamCreateWithFlags(&gone, cudaStreamNonBlocking);
  cudaMallocAsync(reinterpret_cast<void**>(&x), 256, gone);
  cudaStreamDestroy(gone);
  EXPECT_EQ(cudaFreeAsync(x, gone), cudaErrorInvalidResourceHandle);
  expect_found_on_host(Kind::kBadCall, "does not exist or was destroyed");
  cudaFree(x);
}

TEST_F(PlantedStream, DestroyedEvent) {
  cudaEvent_t gone = nullptr;
  cudaEventCreate(&gone);
  cudaEventDestroy(gone);
  EXPECT_EQ(cudaStreamWaitEvent(first, gone), cudaErrorInvalidResourceHandle);
  expect_found_on_host(Kind::kBadCall, "does not exist or was destroyed");
}

TEST_F(PlantedStream, CopyInTheWrongDirection) {
  const Array<float> x(std::vector<float>(4));
  std::vector<float> host(4);
  EXPECT_EQ(cudaMemcpyAsync(host.data(), x.data(), 16, cudaMemcpyHostToDevice, first),
            cudaErrorInvalidValue);
  expect_found_on_host(Kind::kBadCall, "direction");
}

TEST_F(PlantedStream, CopyPastTheEnd) {
  const Array<float> x(std::vector<float>(4));
  std::vector<float> host(5);
  cudaMemcpyAsync(host.data(), x.data(), 20, cudaMemcpyDefault, first);
  expect_found_on_host(Kind::kOutOfBounds, "cudaMemcpyAsync");
}

// Pageable memory was read when the call returns; pinned memory is read as late as can be.
TEST_F(PlantedStream, PageableMemoryMayGoAtOnce) {
  const Array<float> x(4);
  std::vector<float> host{1, 2, 3, 4};
  cudaMemcpyAsync(x.data(), host.data(), 16, cudaMemcpyDefault, first);
  host.assign(4, 9);
  cudaStreamSynchronize(first);
  EXPECT_EQ(x.host(), (std::vector<float>{1, 2, 3, 4}));
  expect_nothing_found();
}

using PlantedStreamDeathTest = PlantedStream;

TEST_F(PlantedStreamDeathTest, PinnedSourceWrittenTooEarly) {
  const Array<float> x(1024);
  float* pinned = nullptr;
  cudaMallocHost(reinterpret_cast<void**>(&pinned), 4096);
  pinned[0] = 1;
  cudaMemcpyAsync(x.data(), pinned, 4096, cudaMemcpyDefault, first);
  EXPECT_DEATH(pinned[0] = 2, "pinned memory that a copy still uses: host code writes");
  EXPECT_EQ(pinned[0], 1);
  cudaStreamSynchronize(first);
  pinned[0] = 2;
  cudaFreeHost(pinned);
  expect_nothing_found();
}

TEST_F(PlantedStreamDeathTest, PinnedTargetReadTooEarly) {
  const Array<float> x(std::vector<float>(1024, 3));
  float* pinned = nullptr;
  cudaMallocHost(reinterpret_cast<void**>(&pinned), 4096);
  cudaMemcpyAsync(pinned, x.data(), 4096, cudaMemcpyDefault, first);
  EXPECT_DEATH(std::printf("%f", pinned[5]), "still uses: host code reads");
  cudaStreamSynchronize(first);
  EXPECT_EQ(pinned[5], 3);
  cudaFreeHost(pinned);
  expect_nothing_found();
}

TEST_F(PlantedStreamDeathTest, HostTouchesDeviceMemory) {
  const Array<float> x(std::vector<float>(4, 3));
  EXPECT_DEATH(x.data()[1] = 2, "device memory on the host: host code writes byte 4 of device");
  EXPECT_DEATH(std::printf("%f", x.data()[2]), "host code reads byte 8 of device allocation");
}

// test_environment.cc compares these before and after each test.
TEST_F(PlantedStream, Leaks) {
  const LiveObjects before = live_objects();
  float *x = nullptr, *y = nullptr;
  cudaMallocAsync(reinterpret_cast<void**>(&x), 256, first);
  cudaMallocAsync(reinterpret_cast<void**>(&y), 256, first);
  cudaFreeAsync(x, first);
  cudaEvent_t second_event = nullptr;
  cudaEventCreate(&second_event);
  const LiveObjects leaking = live_objects();
  EXPECT_EQ(leaking.allocations.size(), before.allocations.size() + 1);
  EXPECT_EQ(leaking.events, before.events + 1);
  EXPECT_EQ(leaking.streams, before.streams);
  cudaFreeAsync(y, first);
  cudaEventDestroy(second_event);
  EXPECT_EQ(live_objects().allocations, before.allocations);
}

TEST_F(PlantedStream, AKernelsErrorStays) {
  run(fill, 1, 1, 0, first, static_cast<float*>(nullptr), 1, 1.0f);
  EXPECT_EQ(cudaStreamSynchronize(first), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_EQ(found().size(), 1u);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

TEST_F(PlantedStream, LaunchesThatTheDeviceRefuses) {
  const Array<float> x(1);
  EXPECT_EQ(run(fill, 1, 1025, 0, first, x.data(), 1, 1.0f), cudaErrorInvalidConfiguration);
  EXPECT_EQ(run(fill, 0, 1, 0, first, x.data(), 1, 1.0f), cudaErrorInvalidConfiguration);
  EXPECT_EQ(run(fill, dim3(1, 65536), 1, 0, first, x.data(), 1, 1.0f),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(run(fill, 1, 1, 50000, first, x.data(), 1, 1.0f), cudaErrorInvalidConfiguration);
  cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, 50000);
  EXPECT_EQ(run(fill, 1, 1, 50000, first, x.data(), 1, 1.0f), cudaSuccess);
  expect_nothing_found();
}

}  // namespace
}  // namespace simt
