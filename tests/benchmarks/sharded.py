"""Memory of each process, and what it learns, as tables are spread over more of them.

UPO-DR on a random log: so many steps of every stage with spread tables on 1, 2 and 4 processes that
meet through gloo, and a checkpoint. Of each process: bytes of its tables, their gradients and
moments and the kept epoch; how far the peak of its resident memory rose above what it was before
tables were made; and how far its rows are from those that one process has learned.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing import spawn

from upo.core.layers import ReplicaEmbedding
from upo.core.shards import Shard, sharded
from upo.data.datamodule import InMemoryDataModule
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.evaluation.protocols import Holdout
from upo.fitted.settings import composed_run
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled
from upo.training.callbacks import History, ReplicaSelection
from upo.training.checkpoint import StageCheckpoint
from upo.training.logs import Stopwatch
from upo.training.stage import StageModule

MIB = 2**20


def resident(which: str) -> float:
    """MiB of this process's resident memory, ``VmRSS`` now or ``VmHWM`` at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(which + ":")[1].split()[0]) / 1024


def log_of(users: int, items: int, pairs: int) -> PairSpace:
    g = torch.Generator().manual_seed(0)
    keys = torch.unique(torch.randint(users * items, (pairs,), generator=g))
    ratings = torch.randint(1, 6, (len(keys),), generator=g).float()
    log = Interactions.validated(keys // items, keys % items, ratings, users, items)
    data = RatingData("random", log, None, LabelRule(3.0))
    return PairSpace.of(InMemoryDataModule(data).data, [0], 0.001)


def settings(o: argparse.Namespace) -> dict[str, Any]:
    """Tables that start at .5, as rounding is amplified from near 0; few pairs are held out."""
    found: dict[str, Any] = {
        "estimator.networks.prediction.dim": o.dim,
        "estimator.networks.propensity.dim": o.dim,
        "estimator.networks.prediction.init_scale": None,
        "estimator.networks.prediction.init_std": 0.5,
        "estimator.networks.propensity.init_std": 0.5,
        "estimator.stages.debias.observed_batch": o.batch,
        "estimator.stages.debias.epochs": 1,
        "estimator.stages.debias.patience": 0,
    }
    for stage in ("propensity", "game", "debias"):
        found[f"estimator.stages.{stage}.pair_batch"] = o.batch
    for stage in ("propensity", "game"):
        found |= {
            f"estimator.stages.{stage}.{key}": value
            for key, value in {"epochs": 1, "steps": o.steps, "select": False}.items()
        }
    found["estimator.stages.propensity.patience"] = 0
    return found


def tensors(stages: list[StageModule], selection: ReplicaSelection) -> Iterator[Tensor]:
    """Everything that grows with the tables."""
    networks = stages[0].estimator.networks
    for module in networks.modules():
        if isinstance(module, ReplicaEmbedding):
            yield module.weight
            yield from (gradient.total for gradient in module.kept_gradients.values())
    tables = {id(p) for p in tables_of(networks)}
    for stage in stages:
        for learner in stage.learners.values():
            if learner.optimizer is not None:
                for p, moments in learner.optimizer.state.items():
                    if id(p) in tables:
                        yield from (x for x in moments.values() if x.dim())
    yield from selection.snapshot.values()


def tables_of(networks: nn.Module) -> list[Tensor]:
    return [m.weight for m in networks.modules() if isinstance(m, ReplicaEmbedding)]


def train(o: argparse.Namespace, shard: Shard, folder: Path) -> dict[str, Any]:
    """The figures of one process, once a small run has read all code."""
    small, space = log_of(2000, 1000, 50_000), log_of(o.users, o.items, o.pairs)
    run(small, o, shard, 3)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    stages, selection, milliseconds = run(space, o, shard, o.steps)
    with sharded(shard):
        path = folder / f"checkpoints{shard.of}" / "debias.pt"
        start = time.perf_counter()
        StageCheckpoint(path, selection, History(), Stopwatch()).write(stages[-1], done=False)
        milliseconds["checkpoint"] = [(time.perf_counter() - start) * 1e3, math.nan]
    estimator = stages[0].estimator
    found = {
        "tables": sum(x.nbytes for x in tensors(stages, selection)) / MIB,
        "peak": resident("VmHWM") - before,
        "milliseconds": milliseconds,
        "parameters": estimator.parameters_per_replica,
    }
    return found | {"distance": compare(estimator.networks, shard, folder)}


def run(
    space: PairSpace, o: argparse.Namespace, shard: Shard, steps: int
) -> tuple[list[StageModule], ReplicaSelection, dict[str, list[float]]]:
    """So many steps of every stage; the stages, what was kept, and milliseconds of a step."""
    config = composed_run("upo_dr", settings(o)).estimator
    with sharded(shard):
        estimator = build_estimator(config, space)
        stages = [
            build_stage(name, config, estimator, Holdout(), replay=False, compiled=False)
            for name in scheduled(config)
        ]
        selection, milliseconds = ReplicaSelection(patience=0), {}
        for stage in stages:
            for learner in stage.learners.values():
                learner.on_stage_start()
                learner.on_epoch_start(0, stage.sampler)
            stage.training_step((0, 1), 0)  # the first step makes moments
            start = time.perf_counter(), time.process_time()
            for first in range(1, steps, 20):
                stage.training_step((first, min(20, steps - first)), 0)
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            milliseconds[stage.stage] = [x * 1e3 / (steps - 1) for x in spent]
        last = stages[-1]
        for epoch, value in enumerate((1.0, 0.5)):  # kept, and replaced by a better one
            last.selection = torch.full((1,), value, dtype=torch.float64)
            selection._take(last, epoch)
    return stages, selection, milliseconds


@torch.no_grad()
def compare(networks: nn.Module, shard: Shard, folder: Path) -> float:
    """How far this process's parameters are from those of one process, which are written."""
    path = folder / "alone.pt"
    if shard.of == 1:
        torch.save({name: p.detach() for name, p in networks.named_parameters()}, path)
        return 0.0
    alone, distance = torch.load(path, mmap=True), 0.0
    tables = {f"{n}.weight": m for n, m in networks.named_modules() if hasattr(m, "range")}
    for name, p in networks.named_parameters():
        lo, hi = tables[name].range if name in tables else (0, len(p))
        distance = max(distance, float((alone[name][lo:hi] - p).abs().max()))
    return distance


def work(rank: int, o: argparse.Namespace, size: int, folder: str) -> None:
    torch.set_num_threads(1)
    place = Path(folder)
    if size > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/init{size}", rank=rank, world_size=size
        )
    result = train(o, Shard(rank, size), place)
    (place / f"{size}-{rank}.json").write_text(json.dumps(result))
    if size > 1:
        dist.destroy_process_group()


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("users", 1_000_000), ("items", 100_000), ("pairs", 2_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=100, help="of each stage")
    parser.add_argument("--dim", type=int, default=16, help="of every embedding table")
    parser.add_argument("--batch", type=int, default=4096, help="rows of O and pairs of D")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    o = parsed(arguments)
    command = " ".join(["python tests/benchmarks/sharded.py", *(arguments or sys.argv[1:])])
    say(f"{command} (cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f})")
    alone: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in sorted({1, *o.processes}):
            spawn(work, args=(o, size, folder), nprocs=size)
            found = [
                json.loads((Path(folder) / f"{size}-{r}.json").read_text()) for r in range(size)
            ]
            alone = alone or found[0]
            tables, peak = (max(x[what] for x in found) for what in ("tables", "peak"))
            say(
                f"{size} processes, {found[0]['parameters']:,} parameters: tables with moments and "
                f"kept epoch {tables:,.0f} MiB ({tables * size / alone['tables']:.3f} of 1/N), "
                f"peak above the start {peak:,.0f} MiB ({peak * size / alone['peak']:.3f} of 1/N), "
                f"farthest parameter {max(x['distance'] for x in found):.1e}"
            )
            for what, (wall, cpu) in found[0]["milliseconds"].items():
                say(f"    {what}: {wall:.0f} ms, {cpu:.0f} ms CPU of the first process")


if __name__ == "__main__":
    main()
