"""Everything ``make bench`` prints: steps, processes, memory, whole runs, and growth with |D|.

The first steps are those of the development settings, whose optimiser moves every row of a table,
the next those of the default settings, whose optimiser moves the rows that a batch looked up.

Each part is a process of its own, since a peak of memory is never forgotten.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIZES = ("coat", "yahoo", "kuairec")
LARGE = ("1M", "1M-4096", "10M")
# Coat's users, items and density, with the networks, bins and batches of the development settings
RUN = (
    "dataset=synthetic",
    "dataset.n_users=290",
    "dataset.n_items=300",
    "dataset.density=0.08",
    "estimator=upo_dr",
    "propensity=upo_joint",
    "logger=none",
    "progress=false",
    "figures=false",
    "trainer.accelerator=cpu",
    "estimator.networks.prediction.dim=64",
    "estimator.networks.propensity.dim=32",
    "estimator.networks.adversary.hidden=0",
    "estimator.bins.num_bins=30",
    "estimator.bins.rule=equal_mass",
    "estimator.stages.debias.observed_batch=128",
    "estimator.stages.debias.pair_batch=128",
)


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def python(*arguments: str, quiet: bool = False) -> tuple[float, float]:
    """Run a process; seconds from its start to its end, and its peak of memory in MiB."""
    start = time.perf_counter()
    done = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL if quiet else None
    )
    _, status, usage = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(arguments)} failed; see above.")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def whole_runs(*overrides: str) -> None:
    say("\nA whole run at Coat's size, UPO-DR, from the start of the process to its results")
    for seeds in (1, 10):
        with tempfile.TemporaryDirectory() as folder:
            given = (*RUN, f"seeds={seeds}", f"hydra.run.dir={folder}", *overrides)
            seconds, memory = python("train.py", *given, quiet=True)
        say(f"seeds = {seeds:2d}: {seconds:6.1f} s, peak {memory:.0f} MiB")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="least of everything: does it run?")
    quick = parser.parse_args(arguments).quick
    say("A step of UPO-DR with all four networks updating; R-step: of one replica")
    if quick:
        python(str(HERE / "step.py"), "--quick")
        whole_runs("estimator.stages.debias.epochs=1")
        return
    first = True
    for size in SIZES:
        for replicas in (1, 10, 64):
            turns = {1: 6, 10: 3, 64: 2}[replicas]
            given = ["--only", size, "--replicas", str(replicas), "--turns", str(turns)]
            python(str(HERE / "step.py"), *given, *([] if first else ["--bare-head"]))
            first = False
    say("\nThe same with the default settings: steps on looked-up rows")
    for size in SIZES:
        for replicas in ("1", "10", "64"):
            python(str(HERE / "defaults.py"), "--only", size, "--replicas", replicas)
    for size in LARGE:
        for loop in ("replay", "compiled"):  # there is room for one stack
            python(str(HERE / "defaults.py"), "--only", size, "--loops", loop)
    say("\nThe same global batch on one and on two processes, one thread each")
    for size in SIZES:
        python(str(HERE / "processes.py"), "--only", size)
    whole_runs()
    say("\nThe same observed pairs while |D| grows a thousandfold")
    python(str(HERE / "scale.py"), "--grow")


if __name__ == "__main__":
    main()
