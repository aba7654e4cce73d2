// cuBLASLt on the simulated device: epilogues by differences or by hand, and planted bugs.
#include <cublasLt.h>

#include <cmath>
#include <functional>

#include "kernels/cuda/matrix_product.h"
#include "serrate/buffer.h"
#include "tests/simt/planted_bug.h"
#include "tests/simt/products.h"
#include "tests/support/simt/cublas_lt_fault.h"
#include "tests/support/simt/library.h"
#include "tests/support/temporary_folder.h"

namespace simt {
namespace {

class Lt : public testing::Test {
 protected:
  Lt() {
    cublasLtCreate(&handle);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  }
  ~Lt() override {
    cublasLtDestroy(handle);
    cudaStreamDestroy(stream);
  }

  template <typename T>
  static void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, T value) {
    EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value),
              CUBLAS_STATUS_SUCCESS);
  }

  // D [m, n] = A [m, k] B [k, n], of `type`, with what `more` adds to the descriptor.
  cublasStatus_t multiply(const void* a, const void* b, void* d, int m, int n, int k,
                          cublasLtEpilogue_t epilogue,
                          const std::function<void(cublasLtMatmulDesc_t)>& more = {},
                          bool by_rows = false) {
    cublasLtMatmulDesc_t desc = nullptr;
    cublasLtMatrixLayout_t la = nullptr, lb = nullptr, ld = nullptr;
    cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatrixLayoutCreate(&la, type, m, k, by_rows ? k : m);
    cublasLtMatrixLayoutCreate(&lb, type, k, n, by_rows ? n : k);
    cublasLtMatrixLayoutCreate(&ld, type, m, n, by_rows ? n : m);
    const std::int32_t order = CUBLASLT_ORDER_ROW;
    for (const auto layout : {la, lb, ld}) {
      if (!by_rows) break;
      cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, 4);
    }
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    if (more) more(desc);
    const cublasStatus_t status =
        cublasLtMatmul(handle, desc, &kTimesOne, a, la, b, lb, &kTimesZero, d, ld, d, ld, nullptr,
                       nullptr, 0, stream);
    cublasLtMatmulDescDestroy(desc);
    for (const auto layout : {la, lb, ld}) cublasLtMatrixLayoutDestroy(layout);
    cudaStreamSynchronize(stream);
    return status;
  }

  cublasLtHandle_t handle = nullptr;
  cudaStream_t stream = nullptr;
  cudaDataType type = CUDA_R_32F;
};

double gelu(double x) {
  return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

TEST_F(Lt, RowsAndColumnsAreTheSameProduct) {
  // [1 2; 3 4] [5 6; 7 8] = [19 22; 43 50]
  const Array<float> a({1, 2, 3, 4}), b({5, 6, 7, 8}), d(4);
  EXPECT_EQ(multiply(a.data(), b.data(), d.data(), 2, 2, 2, CUBLASLT_EPILOGUE_DEFAULT, {}, true),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(d.host(), (std::vector<float>{19, 22, 43, 50}));
  // The same numbers by columns: [1 3; 2 4] [5 7; 6 8] = [23 31; 34 46].
  multiply(a.data(), b.data(), d.data(), 2, 2, 2, CUBLASLT_EPILOGUE_DEFAULT);
  EXPECT_EQ(d.host(), (std::vector<float>{23, 34, 31, 46}));
  expect_nothing_found();
}

TEST_F(Lt, GeluForwardAndBackwardByDifferences) {
  const int m = 8, n = 3, k = 5;
  const auto a = random_floats(m * k, 5), b = random_floats(k * n, 6), bias = random_floats(m, 7);
  const Array<float> da(a), db(b), dbias(bias), d(m * n), aux(m * n);
  const auto with = [&](cublasLtMatmulDesc_t desc) {
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(dbias.data()));
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(aux.data()));
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{m});
  };
  EXPECT_EQ(
      multiply(da.data(), db.data(), d.data(), m, n, k, CUBLASLT_EPILOGUE_GELU_AUX_BIAS, with),
      CUBLAS_STATUS_SUCCESS);
  const auto sums = product(a, false, b, false, m, n, k);
  for (int i = 0; i < m * n; ++i) {
    EXPECT_NEAR(aux.host()[i], sums[i] + bias[i % m], 1e-5);
    EXPECT_NEAR(d.host()[i], gelu(sums[i] + bias[i % m]), 1e-5);
  }
  // The gradient through it, and that of the bias: the sum of a row.
  const Array<float> gradient(m);
  const auto backward = [&](cublasLtMatmulDesc_t desc) {
    with(desc);
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(gradient.data()));
  };
  EXPECT_EQ(
      multiply(da.data(), db.data(), d.data(), m, n, k, CUBLASLT_EPILOGUE_DGELU_BGRAD, backward),
      CUBLAS_STATUS_SUCCESS);
  for (int i = 0; i < m; ++i) {
    double sum = 0;
    for (int j = 0; j < n; ++j) {
      const double x = sums[j * m + i] + bias[i], h = 1e-5;
      const double expected = sums[j * m + i] * (gelu(x + h) - gelu(x - h)) / (2 * h);
      EXPECT_NEAR(d.host()[j * m + i], expected, 1e-4);
      sum += expected;
    }
    EXPECT_NEAR(gradient.host()[i], sum, 1e-3);
  }
  expect_nothing_found();
}

TEST_F(Lt, ReluKeepsABitForEachElement) {
  const Array<float> a({1, -1}), b({2, -3}), d(4), bias({0.5f, 0.5f});
  const Array<std::uint8_t> aux(32);
  const auto with = [&](cublasLtMatmulDesc_t desc) {
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(bias.data()));
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(aux.data()));
    set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{128});
  };
  // Columns (2.5, -1.5) and (-2.5, 3.5).
  multiply(a.data(), b.data(), d.data(), 2, 2, 1, CUBLASLT_EPILOGUE_RELU_AUX_BIAS, with);
  EXPECT_EQ(d.host(), (std::vector<float>{2.5f, 0, 0, 3.5f}));
  multiply(a.data(), b.data(), d.data(), 2, 2, 1, CUBLASLT_EPILOGUE_DRELU, with);
  EXPECT_EQ(d.host(), (std::vector<float>{2, 0, 0, 3}));
  // max(x, 0) of a NaN is 0.
  const Array<float> nan(std::vector<float>{NAN}), one(std::vector<float>{1});
  multiply(nan.data(), one.data(), d.data(), 1, 1, 1, CUBLASLT_EPILOGUE_RELU);
  EXPECT_EQ(d.host()[0], 0);
  expect_nothing_found();
}

TEST_F(Lt, GradientsOfABiasFromTheInputs) {
  // A = [1 3; 2 4], B = [5 7; 6 8]: rows of A sum to 4 and 6, columns of B to 11 and 15.
  const Array<float> a({1, 2, 3, 4}), b({5, 6, 7, 8}), d(4), gradient(2);
  const auto with = [&](cublasLtMatmulDesc_t desc) {
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(gradient.data()));
  };
  multiply(a.data(), b.data(), d.data(), 2, 2, 2, CUBLASLT_EPILOGUE_BGRADA, with);
  EXPECT_EQ(gradient.host(), (std::vector<float>{4, 6}));
  multiply(a.data(), b.data(), d.data(), 2, 2, 2, CUBLASLT_EPILOGUE_BGRADB, with);
  EXPECT_EQ(gradient.host(), (std::vector<float>{11, 15}));
  EXPECT_EQ(d.host(), (std::vector<float>{23, 34, 31, 46}));
  expect_nothing_found();
}

class PlantedLt : public Lt {
 protected:
  PlantedLt() : a(std::vector<float>(128, 1)), b(std::vector<float>(64, 1)), d(128), extra(128) {}

  const Array<float> a, b, d, extra;
};

TEST_F(PlantedLt, NoBias) {
  EXPECT_EQ(multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_BIAS),
            CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the epilogue wants a bias in device memory");
}

TEST_F(PlantedLt, BiasThatIsTooShort) {
  const Array<float> bias(std::vector<float>(3, 1));
  multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_BIAS,
           [&](cublasLtMatmulDesc_t desc) {
             set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(bias.data()));
           });
  expect_found_on_host(Kind::kOutOfBounds, "reads the bias");
}

TEST_F(PlantedLt, BiasOfBfloat16ThatIsNotAligned) {
  type = CUDA_R_16BF;
  const Array<std::uint16_t> halves(std::vector<std::uint16_t>(16, 0x3f80)), result(16);  // ones
  const auto with_bias_from = [&](int begin) {
    return multiply(halves.data(), halves.data(), result.data(), 4, 4, 4, CUBLASLT_EPILOGUE_BIAS,
                    [&](cublasLtMatmulDesc_t desc) {
                      set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                          static_cast<void*>(halves.data() + begin));
                    });
  };
  EXPECT_EQ(with_bias_from(8), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(result.host(), std::vector<std::uint16_t>(16, 0x40a0));  // 4 + 1
  expect_nothing_found();
  EXPECT_EQ(with_bias_from(4), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "a bias of bfloat16 at a multiple of 16");
}

TEST_F(PlantedLt, LeadingDimensionOfTheAuxiliaryMatrix) {
  const auto with = [&](std::int64_t ld) {
    return multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_GELU_AUX,
                    [&, ld](cublasLtMatmulDesc_t desc) {
                      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                          static_cast<void*>(extra.data()));
                      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, ld);
                    });
  };
  EXPECT_EQ(with(8), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(with(4), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the leading dimension of the auxiliary matrix");
}

TEST_F(PlantedLt, MaskWithoutRoomForWholeRows) {
  const auto with = [&](std::size_t bytes, std::int64_t ld) {
    const Array<std::uint8_t> mask(bytes);
    return multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_RELU_AUX,
                    [&, ld](cublasLtMatmulDesc_t desc) {
                      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                          static_cast<void*>(mask.data()));
                      set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, ld);
                    });
  };
  EXPECT_EQ(with(64, 128), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(with(64, 64), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the leading dimension of the auxiliary bits");
  with(49, 128);  // where the last row of the mask has its only byte
  expect_found_on_host(Kind::kOutOfBounds, "writes the auxiliary matrix");
}

TEST_F(PlantedLt, AuxiliaryMatrixThatTheForwardPassDidNotWrite) {
  multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_DGELU,
           [&](cublasLtMatmulDesc_t desc) {
             set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, static_cast<void*>(extra.data()));
             set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, std::int64_t{8});
           });
  expect_found_on_host(Kind::kNotWritten, "reads the auxiliary matrix");
}

TEST_F(PlantedLt, BiasWhereDIsByRows) {
  const auto with = [&](cublasLtMatmulDesc_t desc) {
    set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(extra.data()));
  };
  EXPECT_EQ(multiply(a.data(), b.data(), d.data(), 4, 4, 4, CUBLASLT_EPILOGUE_BIAS, with, true),
            CUBLAS_STATUS_NOT_SUPPORTED);
  expect_found_on_host(Kind::kBadCall, "the epilogue wants D by columns");
}

TEST_F(PlantedLt, AttributeOfAnotherSize) {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  const std::int64_t epilogue = CUBLASLT_EPILOGUE_GELU;
  EXPECT_EQ(cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, 8),
            CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the attribute has 4 bytes, 8 were given");
  cublasLtMatmulDescDestroy(desc);
}

// An algorithm is for one product, wants its workspace, and addresses as aligned as was promised.
TEST_F(PlantedLt, AlgorithmsAreForOneProduct) {
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t small = nullptr, big = nullptr;
  cublasLtMatmulPreference_t preference = nullptr;
  cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
  cublasLtMatrixLayoutCreate(&small, CUDA_R_32F, 4, 4, 4);
  cublasLtMatrixLayoutCreate(&big, CUDA_R_32F, 8, 8, 8);
  cublasLtMatmulPreferenceCreate(&preference);
  const std::uint64_t most = 4096;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                       sizeof most);
  cublasLtMatmulHeuristicResult_t result;
  int returned = 0;
  do {  // until it wants a workspace
    EXPECT_EQ(cublasLtMatmulAlgoGetHeuristic(handle, desc, small, small, small, small, preference,
                                             1, &result, &returned),
              CUBLAS_STATUS_SUCCESS);
    EXPECT_EQ(returned, 1);
  } while (result.workspaceSize == 0);
  const Array<std::uint8_t> workspace(4096);
  const auto use = [&](cublasLtMatrixLayout_t layout, std::size_t bytes, const float* from) {
    return cublasLtMatmul(handle, desc, &kTimesOne, from, layout, b.data(), layout, &kTimesZero,
                          d.data(), layout, d.data(), layout, &result.algo, workspace.data(), bytes,
                          stream);
  };
  EXPECT_EQ(use(small, 4096, a.data()), CUBLAS_STATUS_SUCCESS);
  expect_nothing_found();
  EXPECT_EQ(d.host()[0], 4);
  EXPECT_EQ(use(big, 4096, a.data()), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the algorithm is that of another product");
  EXPECT_EQ(use(small, 2048, a.data()), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the algorithm needs a workspace of 4096 bytes");
  EXPECT_EQ(use(small, 4096, a.data() + 4), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the address of A is no multiple of 256");

  // The heuristic looks at the address of the bias.
  const auto choose = [&] {
    return cublasLtMatmulAlgoGetHeuristic(handle, desc, small, small, small, small, preference, 1,
                                          &result, &returned);
  };
  set(desc, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  EXPECT_EQ(choose(), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the epilogue's addresses are not set yet");
  set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(extra.data()));
  EXPECT_EQ(choose(), CUBLAS_STATUS_SUCCESS);
  set(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, static_cast<void*>(extra.data() + 4));
  EXPECT_EQ(use(small, 4096, a.data()), CUBLAS_STATUS_INVALID_VALUE);
  expect_found_on_host(Kind::kBadCall, "the bias or the auxiliary matrix is less aligned");
  cublasLtMatmulDescDestroy(desc);
  cublasLtMatrixLayoutDestroy(small);
  cublasLtMatrixLayoutDestroy(big);
  cublasLtMatmulPreferenceDestroy(preference);
}

TEST_F(PlantedLt, Leaks) {
  const auto before = live_library_objects().size();
  cublasLtMatrixLayout_t layout = nullptr;
  cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 4, 4, 4);
  EXPECT_EQ(live_library_objects().size(), before + 1);
  cublasLtMatrixLayoutDestroy(layout);
  EXPECT_EQ(live_library_objects().size(), before);
}

// Whichever way cuBLASLt says so.
TEST(LtWithoutAlgorithm, TheErrorNamesTheProductAndWhatToChoose) {
  using serrate::Activation, serrate::DataType, serrate::ProductActivation;
  const serrate::Stream of_device(serrate::Device::cuda(0));
  const serrate::Buffer<float> a(std::vector<float>(6, 1), of_device);
  const serrate::Buffer<float> b(std::vector<float>(24, 2), of_device);
  serrate::Buffer<float> result(16, of_device);
  serrate::Buffer<std::byte> kept(
      serrate::product_kept_bytes(Activation::kRelu, 2, 8, DataType::kFloat32), of_device);
  serrate::MatrixProduct product{
      .a = a.matrix(2, 3), .b = b.matrix(3, 8), .result = result.matrix(2, 8)};
  const auto message = [&] {
    return serrate::testing::message_of<serrate::Error>(
        [&] { serrate::multiply(product, of_device); });
  };
  for (const auto how :
       {NoAlgorithm::kNotSupported, NoAlgorithm::kNoResult, NoAlgorithm::kFailedResult}) {
    plant_no_algorithm(how);
    product.activation = {};
    EXPECT_EQ(message(),
              "cuBLASLt has no algorithm for a product [2, 3] x [3, 8] of fp32 (not every GPU "
              "has one for every type): choose another precision");
    product.activation = {Activation::kRelu, ProductActivation::Pass::kForward, kept.span()};
    EXPECT_EQ(message(),
              "cuBLASLt has no algorithm for a product [2, 3] x [3, 8] of fp32 with relu (its "
              "epilogues do not take every shape): choose the activation gelu or silu");
  }
  plant_no_algorithm({});
  serrate::multiply(product, of_device);
  EXPECT_EQ(result.to_host(of_device), std::vector<float>(16, 6));
  expect_nothing_found();
}

}  // namespace
}  // namespace simt
