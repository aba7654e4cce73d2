// Planted bugs: two devices in one process.
#include "tests/simt/planted_bug.h"

namespace simt {
namespace {

const std::string kFile = "planted_device_test.cu";

__global__ void fill(float* x, float value) {
  x[threadIdx.x] = value;  // bug: fill
}

// Memory, a stream and an event of each device. The current device is the first.
class PlantedDevice : public testing::Test {
 protected:
  PlantedDevice() {
    int count = 0;
    cudaGetDeviceCount(&count);
    EXPECT_EQ(count, 2);
    for (int device = 0; device < 2; ++device) {
      cudaSetDevice(device);
      cudaStreamCreateWithFlags(&stream[device], cudaStreamNonBlocking);
      cudaEventCreateWithFlags(&event[device], cudaEventDefault);
      memory[device] = std::make_unique<Array<float>>(64);
    }
    cudaSetDevice(0);
  }
  ~PlantedDevice() override {
    cudaSetDevice(0);
    for (int device = 0; device < 2; ++device) {
      cudaEventDestroy(event[device]);
      cudaStreamDestroy(stream[device]);
    }
  }

  cudaStream_t stream[2] = {};
  cudaEvent_t event[2] = {};
  std::unique_ptr<Array<float>> memory[2];
};

TEST_F(PlantedDevice, MemoryOfTheOtherDevice) {
  run(fill, 1, 32, 0, stream[0], memory[0]->data(), 1.0f);
  expect_nothing_found();
  run(fill, 1, 32, 0, stream[0], memory[1]->data(), 1.0f);
  expect_found({Kind::kOtherDevice, "fill", any_of(32), kFile, "fill"});
}

TEST_F(PlantedDevice, MemoryOfAPoolIsOfItsStreamsDevice) {
  const auto use = [&](int device) {
    float* x = nullptr;
    cudaMallocAsync(reinterpret_cast<void**>(&x), 128, stream[device]);
    cudaStreamSynchronize(stream[device]);
    run(fill, 1, 32, 0, stream[0], x, 1.0f);
    cudaStreamSynchronize(stream[0]);
    cudaFreeAsync(x, stream[device]);
  };
  use(0);
  expect_nothing_found();
  use(1);
  expect_found({Kind::kOtherDevice, "fill", any_of(32), kFile, "fill"});
}

TEST_F(PlantedDevice, LaunchWithAnotherCurrentDevice) {
  EXPECT_EQ(run(fill, 1, 32, 0, stream[1], memory[1]->data(), 1.0f),
            cudaErrorInvalidResourceHandle);
  expect_found_on_host(Kind::kBadCall, "a kernel's launch: stream");
  cudaSetDevice(1);
  EXPECT_EQ(run(fill, 1, 32, 0, stream[1], memory[1]->data(), 1.0f), cudaSuccess);
  expect_nothing_found();
}

TEST_F(PlantedDevice, EventInTheOtherDevicesStream) {
  EXPECT_EQ(cudaEventRecord(event[0], stream[1]), cudaErrorInvalidResourceHandle);
  expect_found_on_host(Kind::kBadCall, "is of device 1, not of 0");
  // Waiting for it and copies are for all, whatever the current device is.
  cudaEventRecord(event[0], stream[0]);
  cudaStreamWaitEvent(stream[1], event[0]);
  cudaMemsetAsync(memory[1]->data(), 0, 256, stream[1]);
  cudaEventRecord(event[1], stream[1]);
  cudaStreamWaitEvent(stream[0], event[1]);
  cudaMemcpyAsync(memory[0]->data(), memory[1]->data(), 256, cudaMemcpyDefault, stream[0]);
  expect_nothing_found();
  EXPECT_EQ(memory[0]->host(), std::vector<float>(64, 0.0f));
  float milliseconds = 0;
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, event[0], event[1]),
            cudaErrorInvalidResourceHandle);
  expect_found_on_host(Kind::kBadCall, "the events are of two devices");
}

TEST_F(PlantedDevice, ACopyThatNothingOrdersWithTheOtherDevice) {
  run(fill, 1, 64, 0, stream[0], memory[0]->data(), 1.0f);
  cudaMemcpyAsync(memory[1]->data(), memory[0]->data(), 256, cudaMemcpyDefault, stream[1]);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(to_string(findings[0].kind), std::string(to_string(Kind::kStreamRace)));
}

TEST_F(PlantedDevice, SharedMemoryIsAskedForOnEachDevice) {
  constexpr std::size_t kBytes = 64 << 10;
  const auto launch = [&](int device) {
    cudaSetDevice(device);
    return run(fill, 1, 32, kBytes, stream[device], memory[device]->data(), 1.0f);
  };
  cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  EXPECT_EQ(launch(0), cudaSuccess);
  EXPECT_EQ(launch(1), cudaErrorInvalidConfiguration);
  cudaFuncSetAttribute(fill, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  EXPECT_EQ(launch(1), cudaSuccess);
  cudaGetLastError();
  expect_nothing_found();
}

TEST_F(PlantedDevice, EachHasItsMemory) {
  const auto available = [](int device) {
    cudaSetDevice(device);
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    return free;
  };
  const std::size_t before[] = {available(0), available(1)};
  {
    const Array<float> on_second(1 << 20);  // which is the current one
    EXPECT_EQ(available(0), before[0]);
    EXPECT_EQ(available(1), before[1] - (4 << 20));
  }
  EXPECT_EQ(available(1), before[1]);
  EXPECT_EQ(cudaSetDevice(2), cudaErrorInvalidDevice);
  cudaGetLastError();
}

}  // namespace
}  // namespace simt
