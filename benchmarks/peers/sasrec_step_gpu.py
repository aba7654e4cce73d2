"""The training step of sasrec_step_cpu.py, on one GPU with PyTorch alone; targets are the histories, one event later, as in ours. Usage:

sasrec_step_gpu.py [--batch-size 1024] [--ways varlen,nested,compiled] [--items N] [--longest L] [--dim D] [--steps 40] [--seconds S]

In bf16 by autocast, with fp32 weights, fused AdamW for the dense ones. The item table has row-wise Adagrad: of the rows of a batch alone, whose
gradients are summed by index_add. Attention is jagged: varlen (FlashAttention), nested tensors, or varlen with all else but the table compiled. Batches
are on the GPU before; ms_per_step is the median time from the end of a step to that of the next, by events, for which the loop never waits. Each of
several ways has a process of its own, as an error of CUDA ends all that its process has; together they have S seconds. A way that cannot run says why;
`loop`, a call for every sequence, runs without a GPU, where nothing is timed. A line of JSON a way.
"""
import argparse, inspect, itertools, json, statistics, subprocess, sys, time, warnings
warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
from torch import nn

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
HEADS, BLOCKS, NEGATIVES, BATCHES, WARMUP = 2, 2, 512, 8, 8


class Batch:
    def __init__(self, options, generator):
        lengths = torch.exp(torch.randn(options.batch_size, generator=generator) + torch.log(torch.tensor(options.longest / 8.0)))
        self.lengths = lengths.long().clamp(1, options.longest)
        self.tokens, self.longest = int(self.lengths.sum()), int(self.lengths.max())
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        self.offsets = offsets.to(DEVICE)
        self.offsets32 = offsets.int().to(DEVICE)
        self.positions = torch.cat([torch.arange(n) for n in self.lengths]).to(DEVICE)
        draw = options.items ** torch.rand(self.tokens + options.batch_size, generator=generator, dtype=torch.float64)
        events = (draw.long().clamp(1, options.items) - 1).split((self.lengths + 1).tolist())  # one more than tokens
        negatives = torch.randint(0, options.items, (NEGATIVES,), generator=generator)
        self.ids = torch.cat([*(e[:-1] for e in events), *(e[1:] for e in events), negatives]).to(DEVICE)  # histories, targets, negatives


def varlen(q, k, v, batch):
    from torch.nn.attention.varlen import varlen_attn
    names = inspect.signature(varlen_attn).parameters
    causal = {"window_size": (-1, 0)} if "window_size" in names else {"is_causal": True}
    return varlen_attn(q, k, v, batch.offsets32, batch.offsets32, batch.longest, batch.longest, **causal)


def nested(q, k, v, batch):
    jagged = [torch.nested.nested_tensor_from_jagged(x, batch.offsets, min_seqlen=1, max_seqlen=batch.longest).transpose(1, 2) for x in (q, k, v)]
    return F.scaled_dot_product_attention(*jagged, is_causal=True).transpose(1, 2).values()


def loop(q, k, v, batch):
    parts = zip(*(x.split(batch.lengths.tolist()) for x in (q, k, v)))
    return torch.cat([F.scaled_dot_product_attention(*(x.transpose(0, 1)[None] for x in part), is_causal=True)[0].transpose(0, 1) for part in parts])


WAYS = {"varlen": varlen, "nested": nested, "compiled": varlen, "loop": loop}
NAMES = {"compiled": "compiled varlen"}  # others are eager


class BeforeAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim)

    def forward(self, x):
        return self.qkv(self.norm(x)).view(len(x), 3, HEADS, -1).unbind(1)


class AfterAttention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.out, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.up, self.down, self.drop = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim), nn.Dropout(0.1)

    def forward(self, x, attended):
        x = x + self.drop(self.out(attended.flatten(1)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))


class Head(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x, targets, negatives):
        x = self.norm(x)
        logits = torch.cat([(x * targets).sum(-1, keepdim=True), x @ negatives.T], 1)
        return F.cross_entropy(logits.float(), torch.zeros(len(x), dtype=torch.long, device=x.device))


class Model(nn.Module):
    def __init__(self, dim, longest, way):
        super().__init__()
        self.attend, self.scale = WAYS[way], dim**0.5
        self.position, self.drop, self.head = nn.Embedding(longest, dim), nn.Dropout(0.1), Head(dim)
        self.before = nn.ModuleList(BeforeAttention(dim) for _ in range(BLOCKS))
        self.after = nn.ModuleList(AfterAttention(dim) for _ in range(BLOCKS))
        if way == "compiled":
            for module in (*self.before, *self.after, self.head):
                module.compile(dynamic=True)

    def forward(self, rows, batch):
        history, targets, negatives = rows.split([batch.tokens, batch.tokens, NEGATIVES])
        x = self.drop(history * self.scale + self.position(batch.positions))
        for before, after in zip(self.before, self.after):
            q, k, v = before(x)
            x = after(x, self.attend(q, k, v, batch))
        return self.head(x, targets, negatives)


class Table:
    """Row-wise Adagrad, as FBGEMM defines it."""

    def __init__(self, rows, dim):
        self.weights, self.sums = torch.randn(rows, dim, device=DEVICE) * dim**-0.5, torch.zeros(rows, device=DEVICE)

    def update(self, ids, gradients, rate=0.05, eps=1e-8):
        # torch.unique waits for the GPU. So there are as many places as ids: those left over add 0, each to another row.
        ids, order = ids.sort()
        place = F.pad((ids[1:] != ids[:-1]).long().cumsum(0), (1, 0))
        rows = torch.arange(len(ids), device=DEVICE).remainder(len(self.weights)).scatter_(0, place, ids)
        gradient = torch.zeros_like(gradients).index_add_(0, place, gradients[order])
        self.sums.index_add_(0, rows, gradient.square().mean(1))
        self.weights.index_add_(0, rows, gradient * (-rate / (self.sums[rows].sqrt() + eps))[:, None])


def run(way, options):
    generator = torch.Generator().manual_seed(0)
    batches = [Batch(options, generator) for _ in range(BATCHES)]
    torch.manual_seed(0)
    table, model = Table(options.items, options.dim), Model(options.dim, options.longest, way).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=ON_GPU)

    def step(batch):
        rows = F.embedding(batch.ids, table.weights).requires_grad_()
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = model(rows, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        table.update(batch.ids, rows.grad)
        return loss.detach()

    losses, ends = [], []
    for i in range(WARMUP + options.steps):
        losses.append(step(batches[i % BATCHES]))
        if ON_GPU:
            ends.append(torch.cuda.Event(enable_timing=True))
            ends[-1].record()
    milliseconds = float("nan")
    if ON_GPU:
        torch.cuda.synchronize()
        milliseconds = statistics.median(a.elapsed_time(b) for a, b in itertools.pairwise(ends[WARMUP - 1:]))
    tokens = sum(b.tokens for b in batches) / BATCHES
    print(json.dumps({"peer": f"PyTorch {torch.__version__}", "way": NAMES.get(way, f"eager {way}"), "precision": "bf16",
                      "batch_size": options.batch_size, "tokens": round(tokens), "ms_per_step": round(milliseconds, 3),
                      "first_loss": round(losses[0].item(), 4), "last_loss": round(losses[-1].item(), 4)}), flush=True)


def run_apart(ways, end):
    for way in ways:
        try:
            code = subprocess.run([sys.executable, __file__, *sys.argv[1:], "--ways", way], timeout=max(end - time.monotonic(), 0)).returncode
            why = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            why = "no time left"
        if why:
            print(f"{way} cannot run here: {why}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ways", default="varlen,nested,compiled")
    for name, value in [("batch-size", 1024), ("items", 1_000_000), ("longest", 256), ("dim", 64), ("steps", 40)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--seconds", type=float, default=1e6)
    options = parser.parse_args()
    ways = options.ways.split(",")
    if len(ways) > 1:
        return run_apart(ways, time.monotonic() + options.seconds)
    try:
        run(ways[0], options)
    except Exception as error:  # whatever this PyTorch and this GPU do not do
        print(f"{ways[0]} cannot run here: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}", flush=True)


if __name__ == "__main__":
    main()
