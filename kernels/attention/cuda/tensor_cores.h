#pragma once

#include "kernels/attention/cuda/work_list.h"
#include "kernels/attention/view.h"

namespace serrate {

/// Whether rows of so many columns have kernels on tensor cores.
constexpr bool tensor_cores_have(std::int64_t head_dim) {
  return head_dim == 32 || head_dim == 64 || head_dim == 128 || head_dim == 256;
}

/// Whether heads of a call, of the type of its queries, are what kernels on tensor cores multiply:
/// every row is aligned to 16 bytes.
bool are_rows_of_tensor_cores(const AttentionView& args, const InputHeads& heads);

/// Whether a call runs on tensor cores; else it takes the plain kernels, which do everything. All
/// rows are of one type: bfloat16, float16 or, in calls of tf32, float32, which has no other
/// products than those that its callers ask for, and leaves out sequences that decode and, where a
/// block has less than 163 KiB of shared memory, head_dim 128 and 256. Its backward needs 163 KiB
/// at head_dim 64 and 227 KiB at 128 and 256; with less it is plain. Of the forward, sequences that
/// decode take a plain kernel at head_dim 256 with biases, tables, dropout or masks of pairs. The
/// backward of halves leaves out head_dim 256 where a block has less than 163 KiB of shared memory.
bool forward_takes_tensor_cores(const AttentionView& args, const Stream& stream);
bool backward_takes_tensor_cores(const AttentionBackwardView& args, const Stream& stream);

/// Whether there is Hopper's wgmma: on a GPU of sm_90, in builds for sm_90a.
bool is_hopper(const Stream& stream);
/// Whether the forward of a call on tensor cores takes its sequences of more than most_of_whole
/// queries or keys by wgmma and bulk copies. It leaves out head_dim 32, and strides that are not
/// positive or reach 16 GiB. A sequence's way is a function of its lengths and of the call.
bool longest_take_wgmma(const AttentionView& args, const Stream& stream);
/// Likewise the backward, of sequences that decode in the forward too, and of those up to
/// most_of_whole whose queries a block has (resident_rows_of_wgmma()). It also leaves out shared
/// queries. (Gradients of biases and tables are another kernel's.)
bool longest_take_wgmma(const AttentionBackwardView& args, const Stream& stream);
/// The same as far as a plan knows the call: but for the type and the strides of its tokens.
bool may_take_wgmma_backward(const AttentionView& args, const Stream& stream);
/// Counts the tasks that a kernel's blocks have taken. The forward of the longest allocates one.
using Counter = unsigned long long;
void forward_of_longest(const AttentionView& args, const WorkList& work, const Stream& stream);
void backward_of_longest(const AttentionBackwardView& call, const WorkList& work,
                         const Stream& stream);
/// Bytes that the backward of the longest allocates: a counter for each of its kernels, deltas.
std::int64_t backward_of_longest_workspace(const AttentionBackwardView& call);

/// Calls on tensor cores.
void forward_on_tensor_cores(const AttentionForward& args, const Stream& stream);
void backward_on_tensor_cores(const AttentionBackward& args, const Stream& stream);
/// Bytes that the backward allocates besides a plan.
std::int64_t workspace_on_tensor_cores(const AttentionBackward& args, const Stream& stream);

/// Parts of the backward: of sequences all of whose queries a block has, and d_q of others that
/// have more tiles of keys than one, or none. d_q has as many rows as out, also where queries are
/// shared.
void sum_resident(const AttentionBackwardView& call, const WorkList& work, const Stream& stream);
void sum_resident_by_wgmma(const AttentionBackwardView& call, const WorkList& work,
                           const Stream& stream);
void sum_queries_of_many_keys(const AttentionBackwardView& call, const WorkList& work,
                              const Stream& stream);

/// Gradients of biases and tables, and the floats of workspace that they take. d_bias has so many
/// values.
void sum_gradients_of_biases(const AttentionBackwardView& call, std::int64_t bias_size,
                             const Stream& stream);
std::int64_t floats_of_biases(const AttentionBackwardView& call, std::int64_t bias_size);

}  // namespace serrate
