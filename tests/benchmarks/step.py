"""Milliseconds of a joint UPO-DR training step, against a bare PyTorch loop of the same maths.

The scripts run first, then this project's loops in turns, or one after another where there is
no room for all their stacks at once; a time is the least over the turns:

- ``bare``: a script for one seed, with ``torch.optim.Adam`` as the field's scripts have it;
- ``fused``: the same with Adam's fused kernel, the strongest form of it and the yardstick;
- ``step``: a stage of this project, each step through its learners;
- ``replay``: the same with the step recorded once and replayed (``trainer.replay``);
- ``compiled``: the recorded step as machine code (``compile``).
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from benchmarks.bare import BareLoop
from benchmarks.settings import SETTINGS, Setting, generated_log, make_module

from upo.core.memory import freed_memory_kept

HEAD = (
    f"{'':8} {'':8} {'':3} {'wall ms':>9} {'cpu ms /':>9} {'x fused':>7} {'x fused':>7} "
    f"{'sampling':>8} {'peak':>6} {'':>7}\n"
    f"{'size':8} {'loop':8} {'R':>3} {'/ R-step':>9} {'R-step':>9} {'wall':>7} {'cpu':>7} "
    f"{'of step':>8} {'MiB':>6} {'start s':>7}\n"
)


@dataclass
class Timing:
    """Least milliseconds of one step so far."""

    wall: float = float("inf")
    cpu: float = float("inf")
    start: float = 0.0  # seconds of the first steps, with what is made once

    def take(self, run: Callable[[], object], steps: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        self.cpu = min(self.cpu, (time.process_time() - cpu) * 1e3 / steps)
        self.wall = min(self.wall, (time.perf_counter() - wall) * 1e3 / steps)


def peak() -> float:
    """Peak of this process's resident memory in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def heading(script: str, given: list[str]) -> str:
    """The command, and what of the machine its figures depend on."""
    command = " ".join([f"python tests/benchmarks/{script}", *given])
    return (
        f"{command} (threads: {torch.get_num_threads()}, cores: {os.cpu_count()}, "
        f"load: {os.getloadavg()[0]:.1f}, torch {torch.__version__})"
    )


def measure(
    s: Setting, replicas: int, turns: int, most: int | None, ours: tuple[str, ...]
) -> list[str]:
    """Rows of the table at one size."""
    log = generated_log(s)
    steps = most or (64 if s.batch < 1000 else 8)
    loops = {name: BareLoop(s, *log, fused=name == "fused" or None) for name in ("bare", "fused")}
    times = {name: Timing() for name in (*loops, *ours, "drawing")}
    # first, while the process is as a script's: what follows changes how memory is kept
    for _ in range(turns):
        for name, loop in loops.items():
            times[name].take(lambda b=loop: b.run(steps), steps)
    alone = peak()
    rows = [row(s.name, name, 1, times, alone) for name in loops]
    for together in [ours] if s.gib(replicas) * len(ours) < room() else [(name,) for name in ours]:
        take_turns(s, log, replicas, turns, steps, together, times)
        rows += [row(s.name, name, replicas, times, peak()) for name in together]
    return rows


def take_turns(
    s: Setting,
    log: tuple[torch.Tensor, torch.Tensor],
    replicas: int,
    turns: int,
    steps: int,
    names: tuple[str, ...],
    times: dict[str, Timing],
) -> None:
    """Time loops of this project in turns, each with a stack of its own."""
    with freed_memory_kept():
        modules = {name: make_module(s, *log, replicas) for name in names}
        size = min(next(iter(modules.values())).train_dataloader().size, steps)
        size = min(size, max(2, 4 * steps // replicas))
        for name, module in modules.items():
            module.replay, module.compiled = name == "replay", name == "compiled"
            start = time.perf_counter()
            module.training_step((0, 3), 0)  # make what is made once: moments, the recording
            times[name].start = time.perf_counter() - start
        for turn in range(turns):
            for name, module in modules.items():
                chunk = (3 + turn * size, size)
                times[name].take(lambda m=module, c=chunk: m.training_step(c, 0), size)
            times["drawing"].take(lambda m=module, c=chunk: m.sampler.chunk(*c), size)


def row(size: str, loop: str, replicas: int, times: dict[str, Timing], memory: float) -> str:
    t, bare = times[loop], times["fused"]
    share = "" if loop in ("bare", "fused") else f"{times['drawing'].cpu / t.cpu:.0%}"
    return (
        f"{size:8} {loop:8} {replicas:3d} {t.wall / replicas:9.3f} {t.cpu / replicas:9.3f} "
        f"{t.wall / replicas / bare.wall:7.2f} {t.cpu / replicas / bare.cpu:7.2f} {share:>8} "
        f"{memory:6.0f} {t.start:7.1f}"
    )


def room() -> float:
    """GiB of memory that stacks may take: two thirds of what the system could give."""
    info = Path("/proc/meminfo").read_text()
    return int(info.split("MemAvailable:")[1].split()[0]) / 2**20 / 1.5


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two steps each: does it run?")
    parser.add_argument("--only", choices=[s.name for s in SETTINGS], help="one of the sizes")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 10], help="R")
    parser.add_argument("--turns", type=int, default=8, help="repeats, of which the least counts")
    parser.add_argument("--threads", type=int, help="of each operation; PyTorch's own by default")
    parser.add_argument("--bare-head", action="store_true", help="no command and no heading")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if not options.bare_head:
        sys.stdout.write(f"{heading('step.py', arguments or sys.argv[1:])}\n{HEAD}")
    for s in SETTINGS:
        if options.only not in (None, s.name):
            continue
        for replicas in [1] if options.quick else options.replicas:
            ours = ("step", "replay") if options.quick else ("step", "replay", "compiled")
            need = s.gib(replicas)  # of one stack
            if need > room():
                sys.stdout.write(f"{s.name:8} R = {replicas} skipped: it needs {need:.0f} GiB\n")
                continue
            turns = 1 if options.quick else options.turns
            rows = measure(s, replicas, turns, 2 if options.quick else None, ours)
            sys.stdout.write("\n".join(rows) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
