"""Milliseconds of a joint UPO-DR step with the default settings, against a bare PyTorch loop.

Steps on looked-up rows with their penalties, matrix factorisation with biases, and the batches that
``auto`` gives, at the sizes of ``step.py`` and of two large logs; against one seed of the same
mathematics with dense Adam (``bare_defaults.py``, with Adam's fused kernel). All loops run in turns
(A B A B) and the least time of each counts. On a machine that does other work, CPU time is the
steadier column.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.bare_defaults import DefaultLoop, Size
from benchmarks.rows import say
from benchmarks.settings import LOOPS, finish
from benchmarks.step import Timing, heading, peak, room
from torch import Tensor

from upo.core.memory import freed_memory_kept
from upo.evaluation.protocols import Holdout
from upo.fitted.settings import composed_run
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.training.stage import StageModule

SIZES = (
    Size("coat", 290, 300, 6960, 512),
    Size("yahoo", 15_400, 1_000, 311_704, 4096),
    Size("kuairec", 1_411, 3_327, 201_171, 4096),
    Size("1M", 1_000_000, 100_000, 2_000_000, 512, 16),
    Size("1M-4096", 1_000_000, 100_000, 2_000_000, 4096, 16),
    Size("10M", 10_000_000, 1_000_000, 2_000_000, 512, 16),
)
LARGE = 10**7  # users and items from which dense tables twice do not fit beside each other
DENSE = "upo.core.optim.ReplicaAdam"
HEAD = f"{'size':8} {'loop':8} {'R':>3} {'wall ms':>9} {'CPU ms':>9} {'x wall':>7} {'x CPU':>7}"


def generated_log(s: Size) -> tuple[Tensor, Tensor]:
    """Sorted keys and labels, at random."""
    g = torch.Generator().manual_seed(0)
    keys = torch.randint(s.n_users * s.n_items, (s.n_observed,), generator=g).unique()
    return keys, torch.randint(2, (len(keys),), generator=g).float()


def make_module(
    s: Size,
    keys: Tensor,
    labels: Tensor,
    replicas: int,
    loop: str,
    *,
    dense: bool = False,
    device: str = "cpu",
) -> StageModule:
    """The last stage of the joint schedule with the default settings; the first is left out."""
    settings = {
        "propensity": "upo_joint",
        "estimator.networks.prediction.dim": s.dim,
        "estimator.stages.debias.observed_batch": s.batch,
        "estimator.stages.debias.pair_batch": s.batch,
    }
    if dense:
        settings["estimator.learners.prediction.optimizer._target_"] = DENSE
        settings["estimator.fit.optimizer"] = DENSE
    config = composed_run("upo_dr", settings).estimator
    space = PairSpace(keys, labels, s.n_users, s.n_items, list(range(replicas)))
    replay, compiled = LOOPS[loop]
    estimator = build_estimator(config, space)
    module = build_stage("debias", config, estimator, Holdout(), replay=replay, compiled=compiled)
    module.to(device)
    for learner in module.learners.values():
        learner.on_stage_start()
        learner.on_epoch_start(0, module.sampler)
    return module


def measure(s: Size, replicas: int, o: argparse.Namespace) -> None:
    """Rows of the table at one size."""
    log, steps = generated_log(s), o.steps or (64 if s.batch < 1000 and s.n_users < 10**5 else 4)
    bare = None
    if s.n_users + s.n_items <= LARGE:
        with torch.device(o.device):
            bare = DefaultLoop(s, *(x.to(o.device) for x in log))
    modules = {loop: make_module(s, *log, replicas, loop, device=o.device) for loop in o.loops}
    ours = max(2, steps // replicas)

    def run_bare(count: int) -> None:
        bare.run(count)
        finish(o.device)

    def run_ours(module: StageModule, first: int, count: int) -> None:
        module.training_step((first, count), 0)
        finish(o.device)

    times = {name: Timing() for name in ("bare", *modules)}
    if bare is not None:
        run_bare(2)  # moments
    with freed_memory_kept():
        for module in modules.values():
            run_ours(module, 0, 6)  # moments, sums, the recording
    for turn in range(o.turns):
        if bare is not None:
            times["bare"].take(lambda: run_bare(steps), steps)
        for name, module in modules.items():
            with freed_memory_kept():  # as a run does while it trains, and a script does not
                times[name].take(partial(run_ours, module, 6 + turn * ours, ours), ours)
    for name, t in times.items():
        number = 1 if name == "bare" else replicas
        wall, cpu = t.wall / number, t.cpu / number
        ratios = (wall / times["bare"].wall, cpu / times["bare"].cpu)
        shown = "" if bare is None or name == "bare" else "{:7.3f} {:7.3f}".format(*ratios)
        if name != "bare" or bare is not None:
            say(f"{s.name:8} {name:8} {number:3d} {wall:9.3f} {cpu:9.3f} {shown}")
    say(f"{s.name:8} peak {peak():,.0f} MiB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps each: does it run?")
    parser.add_argument("--only", nargs="+", choices=[s.name for s in SIZES], help="of the sizes")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1], help="R")
    parser.add_argument("--turns", type=int, default=4, help="repeats, of which the least counts")
    parser.add_argument("--steps", type=int, help="in a turn; 64 or 4 by default")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    loops = ["step", "replay", "compiled"]
    parser.add_argument("--loops", nargs="+", choices=list(LOOPS), default=loops)
    parser.add_argument("--threads", type=int, help="of each operation; PyTorch's own by default")
    o = parser.parse_args(arguments)
    if o.quick:
        o.only, o.turns, o.steps, o.loops = ["coat"], 1, 2, ["step"]
    if o.threads:
        torch.set_num_threads(o.threads)
    say(f"{heading('defaults.py', arguments or sys.argv[1:])}\n{HEAD}")
    for s in SIZES:
        for replicas in o.replicas if o.only is None or s.name in o.only else []:
            stacks = replicas * len(o.loops) + (s.n_users + s.n_items <= LARGE)
            need = s.gib * stacks
            if need > room():
                say(f"{s.name:8} R = {replicas} skipped: it needs {need:.0f} GiB")
                continue
            measure(s, replicas, o)


if __name__ == "__main__":
    main()
