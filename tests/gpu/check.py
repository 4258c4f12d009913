"""Does everything run on this machine's GPU as on its CPU, and how fast? ``make gpu``.

Correctness comes first: every row of the benchmark in float64 and float32, captured steps, host
waits, resuming, bf16 (``parts.py``). Then steps are timed. One table is printed and written as
JSON; the status is 1 if a check fails. Without a GPU the device is the CPU, which tries the script
and not the device.
"""

import argparse
import json
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu.parts import Line, bfloat, graphs, resumed, rows, times, waits

from upo.core.console import quiet
from upo.core.parallel import in_processes
from upo.runs.compose import choices


@dataclass
class Task:
    """A part of the check, for some rows or numbers of replicas."""

    part: Callable[[str, list], Iterator[Line]]
    device: str
    what: list
    until: float  # it is not begun later, by the clock that all processes of a machine share


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu_check.json"), help="the JSON file")
    parser.add_argument("--rows", nargs="+", help="estimators; all by default")
    parser.add_argument("--seconds", type=float, default=420, help="after which no part is begun")
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 10, 64], help="to time")
    parser.add_argument("--jobs", type=int, help="rows at once; 1 without a GPU, else 1 to 8")
    options = parser.parse_args(arguments)
    quiet()
    warnings.filterwarnings("ignore")
    device = "gpu" if torch.cuda.is_available() else "cpu"
    named = "no GPU here: the device is the CPU"
    if device == "gpu":
        named = torch.cuda.get_device_name()
    jobs = options.jobs or (max(1, min(8, (os.cpu_count() or 1) // 2)) if device == "gpu" else 1)
    sys.stdout.write(f"{named}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    names = options.rows or choices("estimator")
    few = [n for n in ("upo_dr", "dr_v2", "kbips", "dce_tdr", "naive") if n in names] or names[:1]
    start = time.monotonic()
    tasks = [
        Task(part, device, [name], start + options.seconds)
        for chosen in (few, [n for n in names if n not in few])
        for part in (rows, graphs, resumed, waits, bfloat)
        for name in chosen
        if chosen is few or part in (rows, graphs, waits)
    ]
    alone = [Task(times, device, [count], start + options.seconds) for count in options.replicas]
    lines = []
    for found in chain(_together(tasks, jobs), map(_lines, alone)):
        lines += found
        sys.stdout.write("".join(_shown(line) + "\n" for line in found))
        sys.stdout.flush()
    failed = [line for line in lines if line.passed is False]
    seconds = time.monotonic() - start
    options.out.write_text(
        json.dumps(
            {
                "device": named,
                "torch": torch.__version__,
                "seconds": round(seconds, 1),
                "failed": len(failed),
                "lines": [_plain(line) for line in lines],
            },
            indent=1,
        )
    )
    sys.stdout.write(
        f"{len(failed)} of {sum(x.passed is not None for x in lines)} checks failed, "
        f"{seconds:.0f} s, {options.out}\n"
    )
    return bool(failed)


def _together(tasks: list[Task], jobs: int) -> Iterable[list[Line]]:
    """The lines of each task, some of which are done at once."""
    return map(_lines, tasks) if jobs == 1 else in_processes(_lines, tasks, jobs)


def _lines(task: Task) -> list[Line]:
    """The lines of a part; one that fails altogether has a line, and so has one that is left."""
    name, subject = task.part.__name__, ", ".join(map(str, task.what))
    if time.monotonic() > task.until:
        return [Line(name, subject, math.nan, math.nan, None, "skipped: no time left")]
    quiet()
    warnings.filterwarnings("ignore")
    try:
        return list(task.part(task.device, task.what))
    except Exception as error:  # the others are still to be seen
        note = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return [Line(name, subject, math.nan, math.nan, False, note)]


def _shown(line: Line) -> str:
    mark = {True: "ok", False: "FAILED", None: ""}[line.passed]
    bound = "" if math.isnan(line.bound) else f"<= {line.bound:.1e}"
    return f"{line.check:8} {line.subject:32} {line.value:>10.3g} {bound:>11} {mark:6} {line.note}"


def _plain(line: Line) -> dict[str, object]:
    return {k: None if v != v or v == math.inf else v for k, v in asdict(line).items()}


if __name__ == "__main__":
    sys.exit(main())
