"""TorchRec's sharded EmbeddingBagCollection: one training step (input dist, lookup, output dist, backward, update).

torchrun --standalone --nproc_per_node=2 torchrec_step.py cpu|cuda tw|cw|rw|dp [ids_per_bag]     (on CPUs set OMP_NUM_THREADS=1)
torchrec_step.py cpu|cuda tw|cw|rw|dp [ids_per_bag]     one rank
T tables of E rows, batch B per rank, L ids a bag, float32, row-wise Adagrad fused in the backward, a linear layer on top: the workload of
pooled_step_benchmark, which times steps in the same way, from barrier to barrier. Batches are on the device before the clock starts. Prints a line of JSON.
"""
import json, logging, os, statistics, sys, time
logging.disable(logging.CRITICAL)
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import (
    column_wise, construct_module_sharding_plan, data_parallel, row_wise, table_wise)
from torchrec.distributed.types import ShardingEnv, ShardingPlan
from torchrec.optim import RowWiseAdagrad

T, E, D, B, WARMUP, STEPS = 8, 1_000_000, 128, 2048, 5, 20
kind, mode = sys.argv[1:3]
L = int(sys.argv[3]) if len(sys.argv) > 3 else 20
on_gpu = kind == "cuda"
alone = {} if "RANK" in os.environ else {"store": dist.HashStore(), "rank": 0, "world_size": 1}
device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if on_gpu else "cpu")
if on_gpu:
    torch.cuda.set_device(device)
dist.init_process_group("nccl" if on_gpu else "gloo", **alone)
rank, world = dist.get_rank(), dist.get_world_size()
ebc = EmbeddingBagCollection(device=torch.device("meta"), tables=[
    EmbeddingBagConfig(name=f"t{i}", embedding_dim=D, num_embeddings=E, feature_names=[f"f{i}"]) for i in range(T)])
_apply_optimizer_in_backward(RowWiseAdagrad, ebc.parameters(), {"lr": 0.01})
sharding = {"tw": lambda i: table_wise(rank=i % world), "cw": lambda i: column_wise(ranks=list(range(world))),
            "rw": lambda i: row_wise(), "dp": lambda i: data_parallel()}[mode]
sharder = EmbeddingBagCollectionSharder()
plan = construct_module_sharding_plan(ebc, {f"t{i}": sharding(i) for i in range(T)}, sharder=sharder,
                                      local_size=world, world_size=world, device_type=kind)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.ebc, self.top = ebc, nn.Linear(T * D, 1, device=device)

    def forward(self, features):
        return self.top(self.ebc(features).values())


model = DistributedModelParallel(Model(), env=ShardingEnv.from_process_group(dist.GroupMember.WORLD),
                                 device=device, plan=ShardingPlan({"ebc": plan}), sharders=[sharder])
g = torch.Generator().manual_seed(rank)


def batch():
    return KeyedJaggedTensor(keys=[f"f{i}" for i in range(T)], values=torch.randint(0, E, (T * B * L,), generator=g),
                             lengths=torch.full((T * B,), L, dtype=torch.int32)).to(device)


def everyone_is_done():
    if on_gpu:
        torch.cuda.synchronize()
    if world > 1:
        dist.barrier()


batches, nothing, times = [batch() for _ in range(4)], torch.zeros(B, 1, device=device), []
for step in range(STEPS):
    everyone_is_done()
    start = time.perf_counter()
    nn.functional.mse_loss(model(batches[step % 4]), nothing).backward()
    everyone_is_done()
    times.append(1e3 * (time.perf_counter() - start))
if rank == 0:
    ms = statistics.median(times[WARMUP:])
    print(json.dumps({"way": mode, "ids_per_bag": L, "ranks": world, "device": str(device), "ms_per_step": round(ms, 3),
                      "samples_per_second": round(world * B / ms * 1e3)}), flush=True)
dist.destroy_process_group()
