"""Attention on a GPU as PyTorch, JAX and FBGEMM have it, on the batches of attention_benchmark. Usage:

attention_gpu.py CASES [--json FILE] [--seconds 300] [--times 30] [--only WAY,...]

CASES are the lines of attention_benchmark --device cuda --bf16 --json; they have the lengths and the mask of each batch, and its floating point
operations. Every way has its tensors in the layout that it takes: what brings a jagged batch there, and block masks, is made once and not timed.
Medians of events, each call after 1 GiB was written; forward, and backward of the same call; --times of each or what a second has room for both, as ours.
Mosaic goes by the clock, launches and all, and in fp16. A way that cannot do a batch says why. `error` is the largest difference from float32
attention over the first sequences, of long ones the first and last 256 queries; NaN where none has any. What --seconds leaves no time for is not run:
fast ways come first, compiled ones last.
"""
import argparse, json, logging, os, time, warnings
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
DTYPE = {"bfloat16": torch.bfloat16, "float32": torch.float32}
FLUSHED = torch.empty(1 << 30 if ON_GPU else 1, dtype=torch.uint8, device=DEVICE)
MOST_BYTES = 24e9  # of a padded tensor or a matrix of scores


class Refused(Exception):
    """What a way does not do."""


def seconds_of(f, most, longest, least=3):
    """The median of up to `most` calls, as many as `longest` seconds have room for. Without a GPU one call, untimed."""
    f()
    if not ON_GPU:
        return float("nan")
    times, begin = [], time.monotonic()
    torch.cuda.synchronize()
    while len(times) < most and (len(times) < least or time.monotonic() - begin < longest):
        FLUSHED.zero_()
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        f()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) * 1e-3)
    return sorted(times)[len(times) // 2]


class Batch:
    """A line of CASES, and its q, k, v as jagged [tokens, heads, head_dim]."""

    def __init__(self, line):
        self.line, self.mask, self.silu_divisor = line, line["mask"], line["silu_divisor"]
        self.heads, self.dim = line["num_heads"], line["head_dim"]
        self.q_lengths, self.k_lengths = (torch.tensor(line[name]) for name in ("query_lengths", "key_lengths"))
        self.size, self.most_q, self.most_k = len(self.q_lengths), int(self.q_lengths.max()), int(self.k_lengths.max())
        self.is_self = line["query_lengths"] == line["key_lengths"]
        self.is_fixed = self.is_self and bool((self.q_lengths == self.most_q).all())
        ranges = torch.tensor(line["key_ranges"], dtype=torch.int64).view(-1, 2, 2)
        self.ranges = ranges.to(DEVICE) if len(ranges) else None
        self.forgotten_at = torch.tensor(line["forgotten_at"], device=DEVICE) if line["forgotten_at"] else None
        self.scale = self.dim ** -0.5
        torch.manual_seed(1)
        shape = (self.heads, self.dim)
        own = self.most_q if line["shares_queries"] else int(self.q_lengths.sum())
        q, self.k, self.v = (torch.randn(n, *shape, device=DEVICE, dtype=DTYPE[line["type"]])
                             for n in (own, int(self.k_lengths.sum()), int(self.k_lengths.sum())))
        # No way shares queries: each sequence gets a copy, which the ways read.
        self.q = q.repeat(self.size, 1, 1) if line["shares_queries"] else q

    def sees(self, i, j):
        """Whether query i of a sequence sees key j: tensors, element by element."""
        if self.mask == "full":
            return (i >= 0) & (j >= 0)
        if self.ranges is None:
            return j <= i
        r = self.ranges[i]
        seen = ((j >= r[..., 0, 0]) & (j < r[..., 0, 1])) | ((j >= r[..., 1, 0]) & (j < r[..., 1, 1]))
        return seen if self.forgotten_at is None else seen & (i < self.forgotten_at[j])

    def pad(self, x, lengths, longest):
        check_bytes(self.size * longest * x[0].numel() * x.element_size(), "padded")
        out = x.new_zeros(self.size, longest, *x.shape[1:])
        out[self.is_there(lengths, longest)] = x
        return out.transpose(1, 2).contiguous()

    @staticmethod
    def is_there(lengths, longest):
        return (torch.arange(longest) < lengths[:, None]).to(DEVICE)

    def padded(self):
        return self.pad(self.q, self.q_lengths, self.most_q), *(self.pad(x, self.k_lengths, self.most_k) for x in (self.k, self.v))

    def unpad(self, out):
        return out.transpose(1, 2)[self.is_there(self.q_lengths, self.most_q)]

    def padded_mask(self):
        """[size or 1, 1, most_q, most_k] of bool."""
        check_bytes((1 if self.is_fixed else self.size) * self.most_q * self.most_k, "a mask")
        rows = torch.arange(self.most_q, device=DEVICE)[:, None]
        seen = self.sees(rows, torch.arange(self.most_k, device=DEVICE))[None, None]
        # Queries behind the end of a sequence see its first key, so that no row is empty.
        return seen if self.is_fixed else seen & self.is_there(self.k_lengths.clamp(min=1), self.most_k)[:, None, None, :]

    def error(self, out):
        """Of a jagged output. NaN is the largest of all."""
        errors, q0, k0 = [], 0, 0
        for nq, nk in zip(self.q_lengths[:3].tolist(), self.k_lengths[:3].tolist()):
            if nq > 0 and nk > 0:
                rows = torch.arange(nq, device=DEVICE)
                rows = rows if nq <= 512 else torch.cat([rows[:256], rows[-256:]])
                q, k, v = (x[:, :2].detach().float().transpose(0, 1) for x in (self.q[q0 + rows], self.k[k0:k0 + nk], self.v[k0:k0 + nk]))
                scores = q @ k.transpose(1, 2) * self.scale
                seen = self.sees(rows[:, None], torch.arange(nk, device=DEVICE))
                if self.silu_divisor:
                    weights = F.silu(scores).masked_fill(~seen, 0) / self.silu_divisor
                else:
                    weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
                errors.append((out[q0 + rows, :2].float() - (weights @ v).transpose(0, 1)).abs().max())
            q0, k0 = q0 + nq, k0 + nk
        return float(torch.stack(errors).max()) if errors else float("nan")


def check_bytes(size, what):
    if size > MOST_BYTES:
        raise Refused(f"{what} would be {size / 1e9:.0f} GB")


def softmax_only(b):
    if b.silu_divisor:
        raise Refused("no SiLU")


class Jagged:
    """Offsets and longest lengths for the ways that have causal or full masks alone; packed documents are sequences there."""

    def __init__(self, b, others=()):
        softmax_only(b)
        if b.mask not in ("causal", "full", "documents", *others):
            raise Refused(f"no mask {b.mask}")
        self.causal = b.mask != "full"
        self.lengths = b.q_lengths, b.k_lengths
        if b.mask == "documents":
            begins = b.ranges[:, 0, 0].unique().cpu()  # of the documents of a sequence, which are alike
            self.lengths = 2 * ((torch.cat([begins[1:], torch.tensor([b.most_q])]) - begins).repeat(b.size),)
        self.q_offsets, self.k_offsets = (F.pad(x.cumsum(0), (1, 0)).int().to(DEVICE) for x in self.lengths)
        self.most_q, self.most_k = (int(x.max()) for x in self.lengths)


# A way takes a batch and gives (inputs, a function of them, a function from its output to a jagged one).

def same(x):
    return x


def varlen(b):
    """FlashAttention-2 of PyTorch."""
    from torch.nn.attention.varlen import varlen_attn
    j = Jagged(b, others=("window",))
    window = (b.line["window"] if b.mask == "window" else -1, 0 if j.causal else -1)
    return (b.q, b.k, b.v), lambda q, k, v: varlen_attn(q, k, v, j.q_offsets, j.k_offsets, j.most_q, j.most_k, window_size=window), same


def efficient(b):
    """CUTLASS's memory-efficient attention."""
    j = Jagged(b)
    def call(q, k, v):
        return torch.ops.aten._efficient_attention_forward(q[None], k[None], v[None], None, j.q_offsets, j.k_offsets, j.most_q, j.most_k, 0.0,
                                                           int(j.causal), True)[0]
    return (b.q, b.k, b.v), call, lambda out: out[0]


class CudnnVarlen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, j):
        found = torch.ops.aten._cudnn_attention_forward(q, k, v, None, j.q_offsets, j.k_offsets, j.most_q, j.most_k, True, 0.0, j.causal, False)
        ctx.save_for_backward(q, k, v, *found[:2], *found[6:8])
        ctx.jagged = j
        return found[0]

    @staticmethod
    def backward(ctx, d_out):
        q, k, v, out, lse, seed, offset = ctx.saved_tensors
        j = ctx.jagged
        # An undefined bias is an empty tensor here.
        gradients = torch.ops.aten._cudnn_attention_backward(d_out, q, k, v, out, lse, seed, offset, q.new_empty(0), j.q_offsets, j.k_offsets,
                                                             j.most_q, j.most_k, 0.0, j.causal)
        return *gradients, None


def cudnn(b):
    j = Jagged(b)
    return (b.q, b.k, b.v), lambda q, k, v: CudnnVarlen.apply(q, k, v, j), same


def nested(b):
    """SDPA of jagged nested tensors."""
    j = Jagged(b)
    def jagged(x, offsets, lengths):
        return torch.nested.nested_tensor_from_jagged(x, offsets, min_seqlen=int(lengths.min()), max_seqlen=int(lengths.max())).transpose(1, 2)
    def call(q, k, v):
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
            return F.scaled_dot_product_attention(q, k, v, is_causal=j.causal)
    q_offsets, k_offsets = j.q_offsets.long(), j.k_offsets.long()
    inputs = jagged(b.q, q_offsets, j.lengths[0]), *(jagged(x, k_offsets, j.lengths[1]) for x in (b.k, b.v))
    return inputs, call, lambda out: out.transpose(1, 2).values()


def padded(backend):
    def way(b):
        """Causal needs no mask: padding is behind what a query sees. All else has one of bool."""
        softmax_only(b)
        causal = b.mask == "causal"
        mask = None if causal or (b.mask == "full" and b.is_fixed) else b.padded_mask()
        def call(q, k, v):
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return b.padded(), call, b.unpad
    return way


def dense(b):
    """Matrices of scores, as textbook code has them."""
    check_bytes(3 * b.size * b.heads * b.most_q * b.most_k * b.q.element_size(), "scores")
    seen = b.padded_mask()
    def call(q, k, v):
        scores = q @ k.transpose(-1, -2) * b.scale
        if b.silu_divisor:
            return (F.silu(scores) / b.silu_divisor).masked_fill(~seen, 0) @ v
        return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v
    return b.padded(), call, b.unpad


def flex(b):
    """Equal lengths as a batch; others as one sequence of documents."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    softmax_only(b)
    function = torch.compile(flex_attention, dynamic=False) if ON_GPU else flex_attention
    sees = lambda i, j: b.sees(i, j)
    if b.is_fixed:
        mask = create_block_mask(lambda _, h, i, j: sees(i, j), None, None, b.most_q, b.most_k, device=DEVICE)
        return b.padded(), lambda q, k, v: function(q, k, v, block_mask=mask), b.unpad
    total_q, total_k = len(b.q), len(b.k)
    if total_q * total_k > 1 << 36:
        raise Refused("its block mask is made of every pair of tokens")
    of = [torch.repeat_interleave(torch.arange(b.size), lengths).to(DEVICE) for lengths in (b.q_lengths, b.k_lengths)]
    at = [torch.arange(len(s), device=DEVICE) - (lengths.cumsum(0) - lengths).to(DEVICE)[s] for s, lengths in zip(of, (b.q_lengths, b.k_lengths))]
    mask = create_block_mask(lambda _, h, i, j: (of[0][i] == of[1][j]) & sees(at[0][i], at[1][j]), None, None, total_q, total_k, device=DEVICE,
                             _compile=ON_GPU)
    inputs = tuple(x.transpose(0, 1)[None] for x in (b.q, b.k, b.v))
    return inputs, lambda q, k, v: function(q, k, v, block_mask=mask), lambda out: out[0].transpose(0, 1)


def sll(b):
    """FBGEMM's Triton kernel of Jagged Flash Attention (its sequence learning library): self-attention without masks. It has no scale: q has it."""
    softmax_only(b)
    if not b.is_self or b.mask != "full":
        raise Refused("self-attention without a mask alone")
    import fbgemm_gpu.sll  # noqa: F401
    offsets = F.pad(b.q_lengths.cumsum(0), (1, 0)).to(DEVICE)
    inputs = tuple(x.transpose(0, 1).contiguous() for x in (b.q * b.scale, b.k, b.v))
    call = lambda q, k, v: torch.ops.fbgemm.sll_multi_head_jagged_flash_attention(q, k, v, offsets, b.most_q)
    return inputs, call, lambda out: out.transpose(0, 1)


def mosaic(b):
    """JAX's kernel after FlashAttention-3 (jax.experimental.pallas.ops.gpu.attention_mgpu), of equal lengths, forward; fp16 in place of bf16."""
    softmax_only(b)
    import jax
    from jax.experimental.pallas.ops.gpu import attention_mgpu as kernel
    if not b.is_fixed or b.mask not in ("causal", "full"):
        raise Refused("equal lengths, causal or full, alone")
    q, k, v = (jax.dlpack.from_dlpack(x.detach().half().view(b.size, -1, b.heads, b.dim)) for x in (b.q, b.k, b.v))
    config = kernel.TuningConfig(block_q=64, block_kv=128, max_concurrent_steps=2, causal=b.mask == "causal")
    call = jax.jit(lambda q, k, v: kernel.attention(q, k, v, config))
    return (q, k, v), call, lambda out: torch.from_dlpack(out).view(-1, b.heads, b.dim)


def jax_seconds(call, inputs, most, longest, least=3):
    """By the clock: JAX has streams of its own. Its launches count, where calls are short."""
    call(*inputs).block_until_ready()
    times, begin = [], time.monotonic()
    while len(times) < most and (len(times) < least or time.monotonic() - begin < longest):
        FLUSHED.zero_()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call(*inputs).block_until_ready()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


# In order: what may bring the process down comes late.
PASSES = [{"varlen": varlen, "efficient": efficient, "nested": nested},
          {"padded cuDNN": padded(SDPBackend.CUDNN_ATTENTION), "padded flash": padded(SDPBackend.FLASH_ATTENTION),
           "padded efficient": padded(SDPBackend.EFFICIENT_ATTENTION), "dense": dense},
          {"cuDNN": cudnn}, {"Mosaic": mosaic}, {"SLL": sll}, {"flex": flex}]


def timed(held, f, most, longest):
    """Milliseconds, and the megabytes at the most beside those held (None: not known)."""
    if ON_GPU:
        torch.cuda.reset_peak_memory_stats()
    ms = seconds_of(f, most, longest) * 1e3
    return ms, (torch.cuda.max_memory_allocated() - held) * 1e-6 if ON_GPU else None


def measure(name, way, b, times):
    """Times, error, and the most memory that calls had besides the batch and d_out."""
    held = torch.cuda.memory_allocated() if ON_GPU else 0
    inputs, call, to_jagged = way(b)
    has_backward = b.line["backward"] is not None
    limits = times, 0.5 if has_backward else 1.0  # a second for both
    if name == "Mosaic":
        error = b.error(to_jagged(call(*inputs)))  # its memory is JAX's
        return {"forward_ms": jax_seconds(call, inputs, *limits) * 1e3, "backward_ms": None, "error": error, "megabytes": None}
    with torch.no_grad():
        error = b.error(to_jagged(call(*inputs)))
        ms, megabytes = timed(held, lambda: call(*inputs), *limits)
    found = {"forward_ms": ms, "backward_ms": None, "error": error, "megabytes": megabytes}
    if not has_backward:
        return found
    try:
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = call(*leaves)
        before = torch.cuda.memory_allocated() if ON_GPU else 0
        d_out = torch.randn_like(out)
        held += torch.cuda.memory_allocated() - before if ON_GPU else 0
        found["backward_ms"], megabytes = timed(held, lambda: torch.autograd.grad(out, leaves, d_out, retain_graph=True), *limits)
        if ON_GPU:
            found["megabytes"] = max(found["megabytes"], megabytes)
    except Exception as e:
        found["no_backward"] = reason(e)
    return found


def reason(e):
    return f"{'' if isinstance(e, Refused) else type(e).__name__ + ': '}{(str(e).splitlines() or [''])[0][:160]}"


def say(result, line):
    if "fails" in result:
        return result["fails"]
    def direction(which):
        ms = result[f"{which}_ms"]
        return f"{which} {ms:9.3f} ms {line[which]['flops'] / ms * 1e-9:7.1f} TFLOP/s" if ms is not None else f"no {which}"
    return (f"{direction('forward')} | {direction('backward')} | error {result['error']:.1e} | {result['megabytes'] or 0:8.1f} MB "
            f"{result.get('no_backward', '')}")


def floors():
    """What the machine gives: as attention_benchmark measures it, so that the two can be told apart."""
    a = torch.empty_like(FLUSHED)
    x, y = (torch.randn(8192 if ON_GPU else 64, 8192 if ON_GPU else 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    copy, product = seconds_of(lambda: a.copy_(FLUSHED), 15, 1), seconds_of(lambda: x @ y, 15, 1)
    print(f"{torch.__version__}, {torch.cuda.get_device_name() if ON_GPU else 'no GPU: nothing is timed'}: copy {2 * a.numel() / copy * 1e-9:.0f} GB/s, "
          f"product {2 * len(x) ** 3 / product * 1e-12:.0f} TFLOP/s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    parser.add_argument("--json", default=os.devnull)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    floors()
    with open(arguments.cases) as cases, open(arguments.json, "w") as results:
        lines = [line for line in map(json.loads, cases) if line["type"] in DTYPE]  # no way has e4m3
        left_out = 0
        for ways in PASSES:
            ways = {name: way for name, way in ways.items() if not arguments.only or name in arguments.only.split(",")}
            for line in lines if ways else []:
                batch = None
                for name, way in ways.items():
                    if time.monotonic() > end:
                        left_out += 1
                        continue
                    try:
                        batch = batch or Batch(line)
                        result = measure(name, way, batch, arguments.times)
                    except Exception as e:
                        result = {"fails": reason(e)}
                    print(f"{line['name']:32} {name:17} {say(result, line)}", flush=True)
                    results.write(json.dumps({"name": line["name"], "way": name, **result}) + "\n")
                    results.flush()
                if ON_GPU:
                    torch.cuda.empty_cache()
    if left_out:
        print(f"{left_out} not run: no time left")


if __name__ == "__main__":
    main()
