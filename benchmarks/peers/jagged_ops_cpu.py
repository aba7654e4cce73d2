"""FBGEMM's jagged ops on CPU, forward and backward. Usage: jagged_ops_cpu.py [runs]

2,048 sequences of up to 256 rows (log-normal, as in jagged_ops_benchmark), D = T = 64, float32, one thread; processor time, the best of
all runs. Where an op has no backward for an operand, that gradient is not taken.
"""
import json, logging, sys, time
logging.disable(logging.CRITICAL)
import torch, fbgemm_gpu.sll  # noqa: F401

B, N, D = 2048, 256, 64
RUNS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
torch.set_num_threads(1)
torch.manual_seed(1)
f = torch.ops.fbgemm

generator = torch.Generator().manual_seed(1)
lengths = torch.exp(torch.randn(B, generator=generator) + torch.log(torch.tensor(N / 8.0))).long().clamp(1, N)
offsets = f.asynchronous_complete_cumsum(lengths)
squares = f.asynchronous_complete_cumsum(lengths * lengths)
total, num_pairs = int(offsets[-1]), int(squares[-1])


def rand(*shape):
    return (2 * torch.rand(*shape) - 1).requires_grad_()


def best_ms(run):
    times = []
    for _ in range(RUNS + 1):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return 1e3 * min(times[1:])


def case(name, op, *inputs):
    with torch.no_grad():
        forward = best_ms(lambda: op(*inputs))
    result = {"op": name, "forward_ms": round(forward, 3)}
    out = op(*inputs)
    out = out[0] if isinstance(out, (tuple, list)) else out
    if out.requires_grad:
        gradient = torch.rand_like(out)
        wanted = [x for x in inputs if x.requires_grad]
        result["backward_ms"] = round(
            best_ms(lambda: torch.autograd.grad(out, wanted, gradient, retain_graph=True, allow_unused=True)), 3)
    print(json.dumps(result), flush=True)


jagged, dense, pairs, column = rand(total, D), rand(B, D, D), rand(num_pairs), rand(total)
sizes = (lengths, offsets, lengths, offsets, lengths * lengths, squares, N, False)
case("jagged_dense_bmm", lambda x, y: f.jagged_dense_bmm(x, offsets, y, N)[0], jagged, dense)
case("jagged_jagged_bmm", lambda x, y: f.jagged_jagged_bmm(x, y, offsets, N), jagged, rand(total, D))
case("jagged_jagged_bmm_jagged_out", lambda x, y: f.sll_jagged_jagged_bmm_jagged_out(x, y, *sizes), jagged, rand(total, D))
case("array_jagged_bmm_jagged_out",
     lambda a, y: f.sll_array_jagged_bmm_jagged_out(a, y, lengths * lengths, squares, lengths, offsets, lengths, offsets, N, False),
     pairs, jagged)
case("jagged_softmax", lambda x: f.jagged_softmax(x, offsets, N)[0], jagged)
case("jagged_softmax 1-D", lambda x: f.jagged_softmax(x, offsets, N)[0], rand(total, 1))
case("jagged2_softmax columns", lambda x: f.sll_jagged2_softmax(x, offsets, squares, N, False), pairs)
case("jagged2_softmax rows", lambda x: f.sll_jagged2_softmax(x, offsets, squares, N, True), pairs)
padded = rand(B, N, D)
case("jagged_dense_elementwise_add", lambda x, y: f.jagged_dense_elementwise_add_jagged_output(x, [offsets], y)[0], jagged, padded)
case("jagged_dense_elementwise_mul", lambda x, y: f.jagged_dense_elementwise_mul(x, [offsets], y)[0], jagged, padded)
mask = torch.rand(N, N)
case("jagged_dense_elementwise_mul mask", lambda x, y: f.sll_jagged_dense_elementwise_mul_jagged_out(x, y, lengths, squares, N), pairs, mask)
case("jagged_to_padded_dense", lambda x: f.jagged_to_padded_dense(x, [offsets], [N], 0.0), jagged)
case("dense_to_jagged", lambda y: f.dense_to_jagged(y, [offsets])[0], padded)
case("jagged_to_padded_dense 1-D", lambda x: f.jagged_to_padded_dense(x, [offsets], [N], 0.0), rand(total, 1))
case("jagged2_to_padded_dense", lambda x: f.sll_jagged2_to_padded_dense(x, squares, N, 0.0), pairs.detach())
case("dense_jagged_cat 1-D", lambda a, b: f.sll_dense_jagged_cat_jagged_out(a, b, offsets, N), torch.rand(B), column.detach())
times = torch.arange(total) * 3600
deltas = f.asynchronous_complete_cumsum((lengths - 1) ** 2)
case("jagged_self_substraction", lambda t: f.sll_jagged_self_substraction_jagged_out(t, offsets, deltas, N), times)
