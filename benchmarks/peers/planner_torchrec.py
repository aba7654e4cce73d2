"""TorchRec's planner on the problems of planner_benchmark. Usage: planner_torchrec.py INSTANCE.json...

Prints a JSON line per instance: feasible, seconds, rate (the largest sum of shard times of a rank, ms) and crit (the
critical path that its statistics print, ms).
"""
import json, logging, sys, time, warnings
logging.disable(logging.CRITICAL)
warnings.filterwarnings("ignore")
import torch
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.enumerators import EmbeddingEnumerator
from torchrec.distributed.planner.perf_models import NoopPerfModel
from torchrec.distributed.planner.stats import _calculate_critical_path
from torchrec.distributed.planner.storage_reservations import HeuristicalStorageReservation
from torchrec.distributed.planner.types import PlannerError


class Model(torch.nn.Module):
    def __init__(self, tables):
        super().__init__()
        self.tables = EmbeddingBagCollection(device=torch.device("meta"), tables=[
            EmbeddingBagConfig(name=t["name"], num_embeddings=t["num_embeddings"], embedding_dim=t["embedding_dim"],
                               feature_names=["f" + t["name"]]) for t in tables])


def plan(instance):
    topology = Topology(world_size=instance["world_size"], local_world_size=instance["local_world_size"],
                        compute_device="cuda", hbm_cap=instance["hbm_bytes_per_rank"],
                        ddr_cap=instance["ddr_bytes_per_rank"])
    common = {"topology": topology, "batch_size": instance["batch_size_per_rank"], "constraints": {
        t["name"]: ParameterConstraints(pooling_factors=[t["pooling_factor"]],
                                        compute_kernels=instance["compute_kernels"]) for t in instance["tables"]}}
    planner = EmbeddingShardingPlanner(enumerator=EmbeddingEnumerator(**common), debug=False,
                                       storage_reservation=HeuristicalStorageReservation(percentage=0.15), **common)
    start = time.perf_counter()
    try:
        planner.plan(Model(instance["tables"]), [EmbeddingBagCollectionSharder()])
    except PlannerError:
        return {"feasible": False, "seconds": time.perf_counter() - start, "rate": None, "crit": None}
    seconds, best = time.perf_counter() - start, planner._best_plan
    return {"feasible": True, "seconds": seconds, "rate": NoopPerfModel(topology).rate(best),
            "crit": _calculate_critical_path(best).total()}


for path in sys.argv[1:]:
    with open(path) as file:
        print(json.dumps({"instance": path, **plan(json.load(file))}), flush=True)
