#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace serrate {

struct AttentionForward;
struct CpuAttentionPlan;
struct CudaAttentionPlan;

/// What a plan depends on besides the values of offsets and masks.
struct AttentionPlanKey {
  const std::int64_t *query_offsets = nullptr, *key_offsets = nullptr;  ///< device memory
  std::size_t num_offsets = 0;
  std::size_t mask = 0;              ///< which of AttentionMask
  const void* mask_array = nullptr;  ///< the mask's, if it has one, and its size
  std::size_t mask_array_size = 0;
  std::int64_t num_shared_queries = 0, num_heads = 0, num_key_heads = 0, head_dim = 0;
  bool in_tf32 = false;         ///< products of float32 tokens
  bool heads_are_alike = true;  ///< neither biases nor dropout set one apart from another

  bool operator==(const AttentionPlanKey&) const = default;
};
AttentionPlanKey plan_key_of(const AttentionForward& args);

/// How the attention of one batch is shared among threads, and its mask by tiles; see
/// plan_attention. Memory: on the CPU three integers a sequence, four ranges a tile of keys for a
/// ColumnMask; on CUDA ten integers a sequence, in the order of the stream that it was made on.
class AttentionPlan {
 public:
  AttentionPlan();
  explicit AttentionPlan(const AttentionPlanKey& key);  ///< where the backend needs no more
  AttentionPlan(const AttentionPlanKey& key, std::unique_ptr<const CpuAttentionPlan> on_cpu);
  AttentionPlan(const AttentionPlanKey& key, std::unique_ptr<const CudaAttentionPlan> on_cuda);
  AttentionPlan(AttentionPlan&&) noexcept;
  AttentionPlan& operator=(AttentionPlan&&) noexcept;
  ~AttentionPlan();

  /// Floats of partials that a forward needs, 0 if it cuts no history: on the CPU a sum over
  /// sequences that depends on lengths, heads and head_dim alone; on CUDA, where the host does not
  /// know lengths, a bound by the number of sequences, heads, head_dim and multiprocessors.
  std::int64_t num_partials() const;

  const AttentionPlanKey& key() const { return key_; }
  /// The part of a backend.
  const CpuAttentionPlan& on_cpu() const { return *on_cpu_; }
  const CudaAttentionPlan* on_cuda() const { return on_cuda_.get(); }  ///< null: none was wanted

 private:
  AttentionPlanKey key_;
  std::unique_ptr<const CpuAttentionPlan> on_cpu_;
  std::unique_ptr<const CudaAttentionPlan> on_cuda_;
};

}  // namespace serrate
