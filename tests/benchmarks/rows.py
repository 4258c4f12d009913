"""Milliseconds of a joint UPO-DR step on looked-up rows, as tables grow and against dense steps.

First the same batch and dimension with tables of ten thousand and of ten million users (which take
8 GiB: parameters, moments and kept sums of three networks), then the
sizes of Coat and Yahoo! R3 with dense steps (``ReplicaAdam`` with decay, the papers' set-up) and
with steps on rows (``RowAdam`` with a penalty). All loops of a table run in turns, in one process;
a time is the least over the turns.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.settings import PLAYERS, SETTINGS, Setting, by_player, make_module
from benchmarks.step import Timing, heading, peak
from torch import Tensor

from upo.core.memory import freed_memory_kept
from upo.core.optim import ReplicaAdam
from upo.core.row_adam import RowAdam
from upo.training.stage import StageModule

USERS = (10_000, 10_000_000)
LARGE = Setting(
    *("large", 10_000, 1_000, 1_000_000, 512, 1, 20, 1.0, 0.05, 16),
    lr=by_player(0.005, 0.005, 0.005, 0.005),
    weight_decay=by_player(0.0, 0.0, 0.0, 0.0),
    propensity_dim=16,
    prediction_dim=16,
)
PENALTY = {"rows": 0.01, "biases": 0.01}
LOOPS = ("step", "replay", "compiled")


def generated_log(s: Setting) -> tuple[Tensor, Tensor]:
    """Sorted keys and labels, at random, without a list of all pairs."""
    g = torch.Generator().manual_seed(0)
    keys = torch.randint(s.n_users * s.n_items, (s.n_observed,), generator=g).unique()
    return keys, torch.randint(2, (len(keys),), generator=g).float()


def make(s: Setting, replicas: int, loop: str, rows: bool) -> StageModule:
    optimizers = {
        player: partial(RowAdam, lr=s.lr[player])
        if rows
        else partial(ReplicaAdam, lr=s.lr[player], weight_decay=s.weight_decay[player])
        for player in PLAYERS
    }
    penalty = PENALTY if rows else None
    module = make_module(s, *generated_log(s), replicas, optimizers=optimizers, penalty=penalty)
    module.replay, module.compiled = loop == "replay", loop == "compiled"
    return module


def compare(modules: dict[str, StageModule], turns: int, steps: int) -> dict[str, Timing]:
    """Least times of a step, taken in turns."""
    times = {name: Timing() for name in modules}
    for name, module in modules.items():
        start = time.perf_counter()
        module.training_step((0, 3), 0)  # make what is made once: moments, sums, the recording
        times[name].start = time.perf_counter() - start
    for turn in range(turns):
        for name, module in modules.items():
            chunk = (3 + turn * steps, steps)
            times[name].take(lambda m=module, c=chunk: m.training_step(c, 0), steps)
    return times


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def row(*cells: object) -> str:
    return "  ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)


def growing(o: argparse.Namespace) -> None:
    """The same batch with small and with large tables."""
    for loop in o.loops:
        modules = {}
        for users in o.users:
            start = time.perf_counter()
            modules[f"{users:,} users"] = make(replace(LARGE, n_users=users), 1, loop, rows=True)
            say(f"{users:,} users built in {time.perf_counter() - start:.1f} s")
        times = compare(modules, o.turns, o.steps)
        few, many = times.values()
        for name, t in times.items():
            say(row(f"{loop:8} {name:17}", "wall ms", t.wall, "cpu ms", t.cpu))
        say(
            row(f"{loop:8} ratio", "wall", many.wall / few.wall, "cpu", many.cpu / few.cpu)
            + f"  peak {peak():,.0f} MiB"
        )
        del modules


def against_dense(o: argparse.Namespace) -> None:
    """Coat and Yahoo! R3 with dense steps and with steps on rows."""
    for s in SETTINGS[:1] if o.quick else SETTINGS[:2]:
        steps = o.steps if s.batch < 1000 else max(2, o.steps // 16)
        for replicas in o.replicas:
            for loop in o.loops:
                modules = {
                    name: make(s, replicas, loop, rows)
                    for name, rows in (("dense", False), ("rows", True))
                }
                times = compare(modules, o.turns, max(2, steps // replicas))
                dense, rows = times.values()
                say(
                    row(
                        *(f"{s.name:6} R = {replicas:2}  {loop:8}", "wall ms / R-step dense"),
                        *(dense.wall / replicas, "rows", rows.wall / replicas),
                        *("ratio", rows.wall / dense.wall, "cpu", rows.cpu / dense.cpu),
                    )
                )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps each: does it run?")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10], help="R")
    parser.add_argument("--turns", type=int, default=8, help="repeats, of which the least counts")
    parser.add_argument("--steps", type=int, default=64, help="in a turn, at Coat's size")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=list(LOOPS))
    parser.add_argument("--users", type=int, nargs=2, default=USERS, help="small and large tables")
    parser.add_argument("--only", choices=["growing", "dense"])
    parser.add_argument("--threads", type=int, help="of each operation; PyTorch's own by default")
    o = parser.parse_args(arguments)
    if o.quick:
        o.replicas, o.turns, o.steps, o.loops, o.users = [2], 1, 2, ["step"], [100, 10_000]
    if o.threads:
        torch.set_num_threads(o.threads)
    say(heading("rows.py", arguments or sys.argv[1:]))
    with freed_memory_kept():  # as a run does while it trains
        if o.only != "dense":
            growing(o)
        if o.only != "growing":
            against_dense(o)


if __name__ == "__main__":
    main()
