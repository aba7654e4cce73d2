"""PyTorch's ways to attend with few queries to long histories on CPU, forward. Usage: decoding_cpu.py [threads]

float32, softmax, every query sees all keys of its sequence; q, k, v are given jagged as [sum(L), heads, head_dim] and the output is wanted
jagged, so padding is part of what is timed where histories differ. Medians of wall-clock and of processor time per thread. Cases and their
order are those of ../decoding_benchmark.cc.
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

from attention_cpu import lengths_of


def attend(q, k, v, mask=None):  # [batch, tokens, heads, head_dim]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)


def padded(q, k, v, queries, lengths):
    batch, longest = len(lengths), int(lengths.max())
    mask = None
    if int(lengths.min()) < longest:
        inside = torch.arange(longest) < lengths[:, None]
        k, v = (x.new_zeros(batch, longest, *x.shape[1:]).masked_scatter_(inside[..., None, None], x) for x in (k, v))
        mask = inside[:, None, None, :]
    return attend(*(x.view(batch, -1, *x.shape[-2:]) for x in (q, k, v)), mask).reshape(q.shape)


def per_sequence(q, k, v, queries, lengths):
    keys = lengths.tolist()
    return torch.cat([attend(a[None], b[None], c[None])[0] for a, b, c in zip(q.split(queries), k.split(keys), v.split(keys))])


def median_ms(f, threads, runs=5):
    f()
    wall, processor = [], []
    for _ in range(runs):
        starts = time.perf_counter(), time.process_time()
        f()
        wall.append(time.perf_counter() - starts[0])
        processor.append((time.process_time() - starts[1]) / threads)
    return tuple(round(1e3 * sorted(x)[runs // 2], 3) for x in (wall, processor))


def case(kind, batch, queries, longest, heads, key_heads, dim, threads):
    lengths = lengths_of(kind, batch, longest)
    total = int(lengths.sum())
    q = torch.rand(batch * queries, heads, dim) * 2 - 1
    k, v = (torch.rand(total, key_heads, dim) * 2 - 1 for _ in range(2))
    ms, cpu_ms = {}, {}
    for way in (padded, per_sequence):
        if way is padded and 8 * batch * longest * key_heads * dim > 4e9:
            continue  # k and v alone would take more than 4 GB
        with torch.no_grad():
            ms[way.__name__], cpu_ms[way.__name__] = median_ms(lambda: way(q, k, v, queries, lengths), threads)
    name = f"{kind} {batch}x{queries}x{longest} {heads}/{key_heads}x{dim}"
    print(json.dumps({"case": name, "threads": threads, "ms": ms, "cpu_ms": cpu_ms}), flush=True)


if __name__ == "__main__":
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    for heads in ((4, 4, 64), (8, 8, 128), (8, 1, 64), (8, 1, 128)):
        for histories in (("fixed", 64, 1, 2048), ("fixed", 8, 1, 16384), ("fixed", 1, 1, 131072), ("lognormal", 256, 1, 8192),
                          ("fixed", 16, 4, 8192), ("fixed", 16, 16, 2048), ("fixed", 1, 512, 4096)):
            case(*histories, *heads, threads)
