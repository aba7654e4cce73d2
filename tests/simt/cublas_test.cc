// cuBLAS on the simulated device: values by hand or by a double-precision product, and planted
// bugs.
#include <cublas_v2.h>

#include <cmath>
#include <functional>

#include "tests/simt/planted_bug.h"
#include "tests/simt/products.h"
#include "tests/support/simt/library.h"
#include "tests/support/simt/small_floats.h"

namespace simt {
namespace {

std::vector<std::uint16_t> to_bfloat16(const std::vector<float>& values) {
  std::vector<std::uint16_t> bits;
  for (const float v : values) bits.push_back(float_to_bfloat16(v));
  return bits;
}

class Cublas : public testing::Test {
 protected:
  Cublas() {
    cublasCreate(&handle);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cublasSetStream(handle, stream);
  }
  ~Cublas() override {
    cublasDestroy(handle);
    cudaStreamDestroy(stream);
  }

  cublasHandle_t handle = nullptr;
  cudaStream_t stream = nullptr;
};

TEST_F(Cublas, EveryTranspositionByADoubleProduct) {
  const int m = 5, n = 3, k = 7;
  const auto a = random_floats(m * k, 1), b = random_floats(k * n, 2);
  const Array<float> da(a), db(b), dc(m * n);
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      EXPECT_EQ(cublasSgemm(handle, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                            m, n, k, &kTimesOne, da.data(), ta ? k : m, db.data(), tb ? n : k,
                            &kTimesZero, dc.data(), m),
                CUBLAS_STATUS_SUCCESS);
      cudaStreamSynchronize(stream);
      const auto c = dc.host();
      const auto expected = product(a, ta, b, tb, m, n, k);
      for (std::size_t i = 0; i < c.size(); ++i) EXPECT_FLOAT_EQ(c[i], float(expected[i]));
    }
  }
  expect_nothing_found();
}

TEST_F(Cublas, AlphaBetaAndGapsBetweenColumns) {
  // [1 2; 3 4] as columns of 3; C = 2 A B + 10 C, with B = I.
  const Array<float> a({1, 3, -1, 2, 4, -1}), b({1, 0, 0, 1}), c({1, 1, 77, 2, 2, 77});
  const float alpha = 2, beta = 10;
  EXPECT_EQ(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &alpha, a.data(), 3, b.data(), 2,
                        &beta, c.data(), 3),
            CUBLAS_STATUS_SUCCESS);
  cudaStreamSynchronize(stream);
  EXPECT_EQ(c.host(), (std::vector<float>{12, 16, 77, 24, 28, 77}));
  expect_nothing_found();
}

TEST_F(Cublas, Bfloat16AndBatches) {
  const auto a = random_floats(2 * 12, 3), b = random_floats(2 * 8, 4);
  const Array<std::uint16_t> da(to_bfloat16(a)), db(to_bfloat16(b));
  const Array<float> dc(2 * 6);
  EXPECT_EQ(cublasGemmStridedBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 3, 2, 4, &kTimesOne,
                                       da.data(), CUDA_R_16BF, 3, 12, db.data(), CUDA_R_16BF, 4, 8,
                                       &kTimesZero, dc.data(), CUDA_R_32F, 3, 6, 2,
                                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  cudaStreamSynchronize(stream);
  const auto c = dc.host();
  for (int batch = 0; batch < 2; ++batch) {
    const auto expected =
        product({a.begin() + 12 * batch, a.begin() + 12 * batch + 12}, false,
                {b.begin() + 8 * batch, b.begin() + 8 * batch + 8}, false, 3, 2, 4);
    for (int i = 0; i < 6; ++i) EXPECT_FLOAT_EQ(c[batch * 6 + i], float(expected[i]));
  }
  expect_nothing_found();
}

// 1 + 2^-12 has more bits than a tensor core reads.
TEST_F(Cublas, Tf32DropsBits) {
  const Array<float> a(std::vector<float>{1 + 0x1p-12f}), b(std::vector<float>{1}), c(1);
  const auto run_as = [&](cublasComputeType_t compute) {
    cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &kTimesOne, a.data(), CUDA_R_32F, 1,
                 b.data(), CUDA_R_32F, 1, &kTimesZero, c.data(), CUDA_R_32F, 1, compute,
                 CUBLAS_GEMM_DEFAULT);
    cudaStreamSynchronize(stream);
    return c.host()[0];
  };
  EXPECT_EQ(run_as(CUBLAS_COMPUTE_32F), 1 + 0x1p-12f);
  EXPECT_EQ(run_as(CUBLAS_COMPUTE_32F_FAST_TF32), 1.0f);
  cublasSetMathMode(handle, CUBLAS_TF32_TENSOR_OP_MATH);
  EXPECT_EQ(run_as(CUBLAS_COMPUTE_32F), 1.0f);
  EXPECT_EQ(run_as(CUBLAS_COMPUTE_32F_PEDANTIC), 1 + 0x1p-12f);
  expect_nothing_found();
}

class PlantedCublas : public Cublas {
 protected:
  PlantedCublas() : a(std::vector<float>(64, 1)), b(std::vector<float>(64, 1)), c(64) {}

  cublasStatus_t multiply(int m, int n, int k, int lda, int ldb, int ldc,
                          const float* alpha = &kTimesOne, const float* beta = &kTimesZero) {
    return cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, alpha, a.data(), lda, b.data(),
                       ldb, beta, c.data(), ldc);
  }

  const Array<float> a, b, c;
};

TEST_F(PlantedCublas, LeadingDimension) {
  EXPECT_EQ(multiply(4, 4, 8, 4, 8, 4), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(multiply(4, 4, 8, 4, 4, 4), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall,
                       "cublasSgemm: the leading dimension of B is 4, its columns have 8 elements");
}

TEST_F(PlantedCublas, PastTheEnd) {
  EXPECT_EQ(multiply(8, 8, 8, 8, 8, 8), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(multiply(8, 8, 8, 9, 8, 8), CUBLAS_STATUS_SUCCESS);
  expect_found_on_host(Kind::kOutOfBounds, "reads A: ");
}

TEST_F(PlantedCublas, OutputReadThatNothingWrote) {
  EXPECT_EQ(multiply(4, 4, 4, 4, 4, 4, &kTimesOne, &kTimesZero), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(multiply(8, 8, 8, 8, 8, 8, &kTimesOne, &kTimesOne), CUBLAS_STATUS_SUCCESS);
  expect_found_on_host(Kind::kNotWritten, "reads C: ");
}

TEST_F(PlantedCublas, PointerMode) {
  const Array<float> one(std::vector<float>{1}), zero(std::vector<float>{0});
  cublasSetPointerMode(handle, CUBLAS_POINTER_MODE_DEVICE);
  EXPECT_EQ(multiply(4, 4, 4, 4, 4, 4, one.data(), zero.data()), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(c.host()[0], 4);
  EXPECT_EQ(multiply(4, 4, 4, 4, 4, 4), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "alpha or beta is the host's");
}

TEST_F(PlantedCublas, OutputOverAnInput) {
  EXPECT_EQ(cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kTimesOne, a.data(), 4,
                        b.data(), 4, &kTimesZero, a.data() + 8, 4),
            CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "A and C overlap");
}

TEST_F(PlantedCublas, ResultReadInAnotherStream) {
  cudaStream_t other = nullptr;
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  const Array<float> copy(16);
  const auto chain = [&](bool with_event) {
    multiply(4, 4, 4, 4, 4, 4);
    cudaEventRecord(event, stream);
    if (with_event) cudaStreamWaitEvent(other, event);
    cudaMemcpyAsync(copy.data(), c.data(), 64, cudaMemcpyDeviceToDevice, other);
  };
  chain(true);
  expect_nothing_found();
  chain(false);
  expect_found_on_host(Kind::kStreamRace, "cublasSgemm");
  cudaEventDestroy(event);
  cudaStreamDestroy(other);
}

TEST_F(PlantedCublas, InputFreedBeforeTheStreamGetsThere) {
  float* input = nullptr;
  const auto use = [&](cudaStream_t freed_in) {
    cudaMallocAsync(reinterpret_cast<void**>(&input), 64, stream);
    cudaMemsetAsync(input, 0, 64, stream);
    cudaStreamSynchronize(stream);
    cublasSgemm(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kTimesOne, input, 4, b.data(), 4,
                &kTimesZero, c.data(), 4);
    cudaFreeAsync(input, freed_in);
  };
  use(stream);
  expect_nothing_found();
  cudaStream_t other = nullptr;
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  use(other);
  const auto findings = found();
  ASSERT_FALSE(findings.empty());
  EXPECT_TRUE(findings[0].kind == Kind::kNotOrdered || findings[0].kind == Kind::kUseAfterFree);
  cudaStreamDestroy(other);
}

TEST_F(PlantedCublas, OneWorkspaceInTwoStreams) {
  const Array<std::uint8_t> workspace(8192);
  cublasHandle_t second = nullptr;
  cudaStream_t other = nullptr;
  cublasCreate(&second);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cublasSetStream(second, other);
  cublasSetWorkspace(handle, workspace.data(), 8192);
  const Array<float> d(16);
  const auto both = [&] {
    multiply(4, 4, 4, 4, 4, 4);
    cublasSgemm(second, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kTimesOne, a.data(), 4, b.data(), 4,
                &kTimesZero, d.data(), 4);
  };
  both();
  expect_nothing_found();
  cublasSetWorkspace(second, workspace.data(), 8192);
  both();
  expect_found_on_host(Kind::kStreamRace, "cublasSgemm");
  cublasDestroy(second);
  cudaStreamDestroy(other);
}

TEST_F(PlantedCublas, TypesThatDoNotGoTogether) {
  EXPECT_EQ(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kTimesOne, a.data(),
                         CUDA_R_16BF, 4, b.data(), CUDA_R_16F, 4, &kTimesZero, c.data(), CUDA_R_32F,
                         4, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_NOT_SUPPORTED);
  expect_found_on_host(Kind::kBadCall, "no product has these types");
}

TEST_F(PlantedCublas, BatchThatOverlaps) {
  EXPECT_EQ(cublasGemmStridedBatchedEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &kTimesOne,
                                       a.data(), CUDA_R_32F, 4, 16, b.data(), CUDA_R_32F, 4, 0,
                                       &kTimesZero, c.data(), CUDA_R_32F, 4, 8, 2,
                                       CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the products of a batch overlap");
}

TEST_F(PlantedCublas, DestroyedHandle) {
  cublasHandle_t gone = nullptr;
  cublasCreate(&gone);
  cublasDestroy(gone);
  EXPECT_EQ(cublasSetStream(gone, stream), CUBLAS_STATUS_NOT_INITIALIZED);
  expect_found_on_host(Kind::kBadCall, "the handle does not exist or was destroyed");
}

}  // namespace
}  // namespace simt
