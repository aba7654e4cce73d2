#!/usr/bin/env python3
"""Prints a planning problem for planner_benchmark: TABLES tables on RANKS GPUs, 8 a node.

Usage: planner_instance.py TABLES RANKS [--kernels all] > instance.json

Rows log-uniform in 1e3..1e8, dim one of 16..256, ids a bag log-uniform in 1..100, 512 samples a rank; what TorchRec's
planner leaves of 80 GiB: 85 %, less 20 times the ids of a batch. "all" adds fused_uvm and fused_uvm_caching.
"""
import json, random, sys


def make_instance(num_tables, num_ranks, kernels="fused"):
    rng = random.Random(0)
    tables = []
    for i in range(num_tables):
        rows = int(10 ** rng.uniform(3, 8))
        dim = rng.choice([16, 32, 64, 128, 256])
        ids = float(max(1, int(10 ** rng.uniform(0, 2))))
        tables.append({"name": f"t{i}", "num_embeddings": rows, "embedding_dim": dim, "pooling_factor": ids})
    batch, hbm = 512, 80 << 30
    ids_bytes = int(sum(t["pooling_factor"] for t in tables) * batch * 8)
    return {"hbm_usable_bytes_per_rank": int(hbm * 0.85) - 20 * ids_bytes, "world_size": num_ranks,
            "local_world_size": 8, "batch_size_per_rank": batch, "hbm_bytes_per_rank": hbm,
            "ddr_bytes_per_rank": 512 << 30,
            "compute_kernels": ["fused", "dense"] + (["fused_uvm", "fused_uvm_caching"] if kernels == "all" else []),
            "tables": tables}


if __name__ == "__main__":
    if len(sys.argv) not in (3, 5):
        sys.exit(__doc__)
    print(json.dumps(make_instance(int(sys.argv[1]), int(sys.argv[2]), sys.argv[-1])))
