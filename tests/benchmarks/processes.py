"""Milliseconds of a step on one and on several processes of this machine, each with one thread."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist
from benchmarks.settings import SETTINGS, generated_log, make_module

from upo.core.memory import freed_memory_kept


def worker(rank: int, processes: int, name: str, replicas: int, turns: int, folder: str) -> None:
    """One rank; the first writes the least milliseconds of a step."""
    torch.set_num_threads(1)
    if processes > 1:
        store = f"file://{folder}/store{processes}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    s = next(s for s in SETTINGS if s.name == name)
    module = make_module(s, *generated_log(s), replicas)
    module.replay = False
    steps, least = (32 if s.batch < 1000 else 4), float("inf")
    with freed_memory_kept():
        module.training_step((0, 2), 0)
        for turn in range(turns):
            start = time.perf_counter()
            module.training_step((2 + turn * steps, steps), 0)
            least = min(least, (time.perf_counter() - start) * 1e3 / steps)
    if rank == 0:
        (Path(folder) / f"{processes}.json").write_text(json.dumps(least))
    if processes > 1:
        dist.destroy_process_group()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=[s.name for s in SETTINGS], default="coat")
    parser.add_argument("--replicas", type=int, default=10, help="R")
    parser.add_argument("--turns", type=int, default=4, help="repeats, of which the least counts")
    o = parser.parse_args(arguments)
    times = {}
    for processes in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            given = (processes, o.only, o.replicas, o.turns, folder)
            torch.multiprocessing.spawn(worker, given, nprocs=processes)
            times[processes] = json.loads((Path(folder) / f"{processes}.json").read_text())
    for processes, least in times.items():
        sys.stdout.write(
            f"{o.only:8} R = {o.replicas:2d}, {processes} processes: {least / o.replicas:8.3f} "
            f"ms / R-step, {least / times[1]:.2f} of one (load {os.getloadavg()[0]:.1f})\n"
        )


if __name__ == "__main__":
    main()
