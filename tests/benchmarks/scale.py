"""Seconds to read a large log, memory, and milliseconds of a step as the log or |D| grows.

Generates a skewed log of integer (or text) ids, reads it as ``dataset=table`` does, and times the
steps of each stage, in turns with those of the same tables and batches on a thousandth of the
observed pairs; ``--steps 0`` only reads. ``--train STEPS`` runs the same log through ``train.py``.
``--grow`` keeps the observed pairs and lets |D| grow a thousandfold. Each size is a process of its
own, as a peak of memory is never forgotten.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
import torch
from omegaconf import DictConfig

from upo.core.memory import freed_memory_kept
from upo.data.datamodule import InMemoryDataModule
from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData, report
from upo.data.table import read_table
from upo.evaluation.protocols import Holdout
from upo.fitted.settings import composed_run
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled

ROOT = Path(__file__).parents[2]
BLOCK = 2**21  # rows written at once
THIN = 1000  # share of the observed pairs that the smaller world keeps, as 1 / THIN
TURNS = 5  # a step time is the least of these
GROWTH = (1, 32, 1000)  # of |D|


def peak() -> float:
    """Peak of this process's resident memory in MiB; ``ru_maxrss`` may be that of its parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def blocks(o: argparse.Namespace) -> Iterator[pa.Table]:
    """A log of about ``o.pairs`` different pairs, of users all over in each block."""
    g = np.random.default_rng(0)
    weight = g.pareto(1.5, o.users) + 0.2  # few users rate much, many little
    share = np.minimum(weight / weight.sum() * o.pairs, o.items / 4)
    counts = np.maximum(1, (share * o.pairs / share.sum()).astype(np.int64))
    groups = max(1, o.pairs // BLOCK)
    for group in range(groups):
        mine = np.arange(group, o.users, groups)
        user = np.repeat(mine, counts[mine])
        item = (o.items * g.random(len(user)) ** 3).astype(np.int64)  # few items are rated much
        key = np.unique(user * o.items + item)
        g.shuffle(key)
        user, item = key // o.items, key % o.items
        ids = {"user": user * 2654435761 % 2**32, "item": item * 40503 % 2**31}
        if o.text:
            ids = {k: pa.array(v).cast(pa.string()) for k, v in ids.items()}
            ids = {k: pa.compute.binary_join_element_wise(k, v, "-") for k, v in ids.items()}
        rating = g.integers(1, 6, len(key))
        yield pa.table({**ids, "rating": pa.array(rating.astype(np.int8))})


def write(path: Path, o: argparse.Namespace) -> None:
    tables = blocks(o)
    first = next(tables)
    if path.suffix == ".csv":
        sink: Any = pyarrow.csv.CSVWriter(path, first.schema)
    else:
        sink = pyarrow.parquet.ParquetWriter(path, first.schema)
    with sink:
        sink.write_table(first)
        for table in tables:
            sink.write_table(table)


def configured(o: argparse.Namespace) -> DictConfig:
    return composed_run(o.estimator, settings(o))


def settings(o: argparse.Namespace) -> dict[str, int]:
    """The same tables and batches for every world."""
    return {
        "estimator.networks.prediction.dim": o.dim,
        "estimator.networks.propensity.dim": o.dim,
        "estimator.stages.debias.observed_batch": o.batch,
        "estimator.stages.debias.pair_batch": o.batch,
    }


class Steps:
    """The stages of a run on some data, and the least milliseconds of a step of each so far."""

    def __init__(self, data: RatingData, o: argparse.Namespace) -> None:
        config = configured(o).estimator
        self.count = o.steps
        space = PairSpace.of(InMemoryDataModule(data).data, [0], 0.1)
        estimator = build_estimator(config, space)
        self.observed, self.parameters = space.n_observed, estimator.parameters_per_replica
        self.stages = {
            name: build_stage(name, config, estimator, Holdout()) for name in scheduled(config)
        }
        self.times = {name: [math.inf, math.inf] for name in self.stages}  # wall, CPU
        for module in self.stages.values():
            for learner in module.learners.values():
                learner.on_stage_start()
                learner.on_epoch_start(0, module.sampler)
            module.training_step((0, 1), 0)  # gives the optimiser its state

    def take(self, name: str, turn: int) -> None:
        before = time.perf_counter(), time.process_time()
        self.stages[name].training_step((1 + turn * self.count, self.count), 0)
        spent = time.perf_counter() - before[0], time.process_time() - before[1]
        least = zip(self.times[name], spent, strict=True)
        self.times[name] = [min(old, new * 1e3 / self.count) for old, new in least]

    def result(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("times", "parameters", "observed")}


def world(o: argparse.Namespace) -> dict[str, Any]:
    """Read the file, and time in turns the steps on it and on a thousandth of its rows."""
    result: dict[str, Any] = {"start": peak()}
    before = time.perf_counter(), time.process_time()
    data = read_table(o.world)
    result["read"] = [time.perf_counter() - before[0], time.process_time() - before[1]]
    result["read_peak"] = peak()
    result["report"] = report(data)
    if not o.steps:
        return result
    full = Steps(data, o)
    for name in full.stages:
        full.take(name, 0)
    result["peak"] = peak()
    kept = torch.arange(len(data.train)) % THIN == 0
    thin = Steps(replace(data, train=data.train.where(kept)), o)
    for name in full.stages:  # one stage after another, as in a run: a recorded step is kept
        for turn in range(1, TURNS + 1):
            thin.take(name, turn)
            full.take(name, turn)
    return result | {"worlds": [full.result(), thin.result()]}


def grown(o: argparse.Namespace) -> dict[str, Any]:
    """The same number of observed pairs in a space ``o.grown`` times as large."""
    users, items = (round(n * o.grown**0.5) for n in (o.users, o.items))
    g = torch.Generator().manual_seed(0)
    keys = torch.unique(torch.randint(users * items, (o.pairs,), generator=g))
    ratings = torch.randint(1, 6, (len(keys),), generator=g).float()
    log = Interactions.validated(keys // items, keys % items, ratings, users, items)
    result = {"start": peak(), "users": users, "items": items}
    steps = Steps(RatingData("grown", log, None, LabelRule(3.0)), o)
    for name in steps.stages:
        for turn in range(TURNS):
            steps.take(name, turn)
    return result | steps.result() | {"peak": peak()}


def child(o: argparse.Namespace, *more: str) -> dict[str, Any]:
    """The result of this script in a process of its own."""
    names = ("users", "items", "pairs", "steps", "estimator", "dim", "batch")
    given = [f"--{name}={getattr(o, name)}" for name in names]
    command = [sys.executable, __file__, *given, *more]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def said_times(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{name} {wall:.2f} ms wall, {cpu:.2f} ms CPU"
        for name, (wall, cpu) in result["times"].items()
    )


def train(path: Path, folder: Path, o: argparse.Namespace) -> None:
    """``train.py`` on the file: seconds and peak memory of the whole run."""
    plans = [f"++estimator.stages.{n}" for n, p in configured(o).estimator.stages.items() if p]
    overrides = [f"{plan}.{key}" for plan in plans for key in ("epochs=1", f"steps={o.train}")]
    overrides += [f"{key}={value}" for key, value in settings(o).items()]
    command = [
        *(sys.executable, "train.py", "dataset=table", f"dataset.train={path}"),
        *(f"estimator={o.estimator}", "protocol.share=0.01", "progress=false"),
        *(f"hydra.run.dir={folder / 'run'}", *overrides),
    ]
    say(" ".join(["$ python", *command[1:]]))
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    say(
        f"train.py: exit status {os.waitstatus_to_exitcode(status)}, {seconds:.0f} s wall, "
        f"{usage.ru_utime + usage.ru_stime:.0f} s CPU, peak {usage.ru_maxrss / 1024:,.0f} MiB"
    )


def compare(o: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=o.folder) as name:
        path = Path(name) / f"log.{o.format}"
        write(path, o)
        say(f"{path.name}: {path.stat().st_size / 2**20:,.0f} MiB")
        result = child(o, f"--world={path}")
        say(result["report"])
        say("read: {:.1f} s wall, {:.1f} s CPU".format(*result["read"]))
        say(
            f"peak memory: {result['start']:,.0f} MiB after imports, {result['read_peak']:,.0f} "
            f"after reading"
        )
        if not o.steps:
            return
        full, thin = result["worlds"]
        say(f"{result['peak']:,.0f} MiB after training; {full['parameters']:,} parameters")
        for one in (full, thin):
            say(f"{one['observed']:,} observed pairs: {said_times(one)}")
        for stage, (wall, cpu) in full["times"].items():
            other = thin["times"][stage]
            say(f"ratio, {stage}: {wall / other[0]:.2f} wall, {cpu / other[1]:.2f} CPU")
        if o.train:
            train(path, Path(name), o)


def grow(o: argparse.Namespace) -> None:
    for factor in GROWTH:
        result = child(o, f"--grown={factor}")
        users, items = result["users"], result["items"]
        say(
            f"|D| = {users:,} x {items:,} = {users * items:.1e}, |O| = {result['observed']:,}, "
            f"{result['parameters']:,} parameters: {said_times(result)}; peak "
            f"{result['peak']:,.0f} MiB, of these {result['peak'] - result['start']:,.0f} for steps"
        )


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("users", 50_000), ("items", 5_000), ("pairs", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=20, help="of each stage; 0 reads only")
    parser.add_argument("--estimator", default="upo_dr")
    parser.add_argument("--dim", type=int, default=16, help="of every embedding table")
    parser.add_argument("--batch", type=int, default=512, help="rows of O and pairs of D")
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet")
    parser.add_argument("--text", action="store_true", help="text ids in the place of integers")
    parser.add_argument("--train", type=int, default=0, help="steps of each stage in train.py")
    parser.add_argument("--grow", action="store_true", help="let |D| grow a thousandfold instead")
    parser.add_argument("--folder", help="where the log is generated; a temporary one by default")
    for name in ("--world", "--grown"):
        parser.add_argument(name, type=float if name == "--grown" else str, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    o = parsed(arguments)
    if o.world or o.grown:
        with freed_memory_kept():  # as a run does while it trains
            found = world(o) if o.world else grown(o)
        say(json.dumps(found))
        return
    command = " ".join(["python tests/benchmarks/scale.py", *(arguments or sys.argv[1:])])
    say(f"{command} (cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f})")
    (grow if o.grow else compare)(o)


if __name__ == "__main__":
    main()
