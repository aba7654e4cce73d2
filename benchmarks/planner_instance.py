#!/usr/bin/env python3
"""Prints a planning problem for planner_benchmark: TABLES tables on RANKS GPUs, 8 a node.

Usage: planner_instance.py TABLES RANKS [--kernels all] [--memory PART] [--seed N] > instance.json

Rows log-uniform in 1e3..1e8, dim one of 16..256, ids a bag log-uniform in 1..100, 512 samples a rank; what TorchRec's
planner leaves of 80 GiB: 85 %, less 20 times the ids of a batch. "all" adds fused_uvm and fused_uvm_caching. With
--memory, the ranks together have PART times what the tables take on one rank each, which is the least they can take
without host memory.
"""
import argparse, json, random


def smallest_bytes(table, batch, num_ranks):
    """Of the table on one rank: rows, ids and outputs of all ranks' batches."""
    ids = batch * num_ranks * table["pooling_factor"]
    return (table["num_embeddings"] + batch * num_ranks) * table["embedding_dim"] * 4 + int(ids) * 8


def make_instance(num_tables, num_ranks, kernels="fused", memory=None, seed=0):
    rng = random.Random(seed)
    tables = []
    for i in range(num_tables):
        rows = int(10 ** rng.uniform(3, 8))
        dim = rng.choice([16, 32, 64, 128, 256])
        ids = float(max(1, int(10 ** rng.uniform(0, 2))))
        tables.append({"name": f"t{i}", "num_embeddings": rows, "embedding_dim": dim, "pooling_factor": ids})
    batch, hbm = 512, 80 << 30
    ids_bytes = int(sum(t["pooling_factor"] for t in tables) * batch * 8)
    usable = int(hbm * 0.85) - 20 * ids_bytes
    if memory:
        usable = int(memory * sum(smallest_bytes(t, batch, num_ranks) for t in tables) / num_ranks)
    return {"hbm_usable_bytes_per_rank": usable, "world_size": num_ranks,
            "local_world_size": 8, "batch_size_per_rank": batch, "hbm_bytes_per_rank": hbm,
            "ddr_bytes_per_rank": 512 << 30,
            "compute_kernels": ["fused", "dense"] + (["fused_uvm", "fused_uvm_caching"] if kernels == "all" else []),
            "tables": tables}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__.replace("%", "%%"))
    parser.add_argument("tables", type=int)
    parser.add_argument("ranks", type=int)
    parser.add_argument("--kernels", choices=["fused", "all"], default="fused")
    parser.add_argument("--memory", type=float)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(make_instance(args.tables, args.ranks, args.kernels, args.memory, args.seed)))
