"""CPU seconds and peak memory of an epoch of UPO-DR on fifty million rows, as ``train.py`` runs it.

Writes a skewed log of a million users and 100,000 items to a Parquet file and runs ``train.py`` on
it: the default settings with k = 16, and some steps of each stage, replayed as a run of this length
replays them. An epoch is then its steps at the measured time of one, and a validation. First with
the default steps on looked-up rows, then with dense steps of Adam under the same penalty. Each run
is a process of its own, as a peak of memory is never forgotten.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scale import ROOT, peak, say, write

DENSE = "upo.core.optim.ReplicaAdam"
LOOPS = {
    "rows": [],
    "dense": [
        f"estimator.learners.prediction.optimizer._target_={DENSE}",
        f"estimator.fit.optimizer={DENSE}",
    ],
}
STAGES = ("propensity", "game", "debias")


class Clock:
    """CPU seconds and calls of some methods, by stage."""

    def __init__(self) -> None:
        self.stage = "run"
        self.spent: dict[str, dict[str, list[float]]] = {}

    def time(
        self, owner: type, method: str, what: str, count: Callable[..., int] = lambda *_: 1
    ) -> None:
        """Time a method; ``count`` says of how many steps a call is."""
        run: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(run)
        def timed(this: Any, *given: Any, **named: Any) -> Any:
            self.stage = getattr(this, "stage", self.stage)
            before = time.process_time()
            found = run(this, *given, **named)
            spent = self.spent.setdefault(self.stage, {}).setdefault(what, [0.0, 0])
            spent[0] += time.process_time() - before
            spent[1] += count(*given)
            return found

        setattr(owner, method, timed)


def trained(words: list[str]) -> None:
    """``train.py`` with these words, in this process; says what was measured as JSON."""
    from upo.cli import main
    from upo.data.datamodule import RatingDataModule
    from upo.pairs import BatchSampler
    from upo.runs.experiment import Experiment
    from upo.training.checkpoint import StageCheckpoint
    from upo.training.debiasing import DebiasingModule
    from upo.training.propensity import PropensityModule
    from upo.training.recording import Recording
    from upo.training.stage import StageModule

    clock = Clock()
    clock.time(StageModule, "training_step", "all steps", lambda chunk, _: chunk[1])
    clock.time(BatchSampler, "chunk", "sampling", lambda _, count: count)
    clock.time(Recording, "replay", "replay", len)
    clock.time(PropensityModule, "validation_step", "validation")
    clock.time(DebiasingModule, "validation_step", "validation")
    clock.time(StageCheckpoint, "write", "checkpoint")
    clock.time(RatingDataModule, "setup", "reading")
    clock.time(Experiment, "_prepared", "building")
    sys.argv = ["train.py", *words]
    main()
    say(json.dumps({"spent": clock.spent, "peak": peak(), "cpu": time.process_time()}))


def child(o: argparse.Namespace, path: Path, folder: Path, loop: str) -> dict[str, Any]:
    """What a run with these steps takes."""
    words = [
        *("dataset=table", f"dataset.train={path}", "estimator=upo_dr", "trainer.replay=true"),
        *("progress=false", "figures=false", "logger=none", f"hydra.run.dir={folder / loop}"),
        "estimator.networks.prediction.dim=16",
        *(f"++estimator.stages.{stage}.epochs=1" for stage in STAGES),
        *(f"++estimator.stages.{stage}.steps={o.steps}" for stage in STAGES),
        *(f"estimator.stages.{stage}.pair_batch={o.batch}" for stage in STAGES),
        f"estimator.stages.debias.observed_batch={o.batch}",
        *LOOPS[loop],
        *o.words,
    ]
    say(" ".join(["$ python train.py", *(word for word in words if "hydra" not in word)]))
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(o: argparse.Namespace, found: dict[str, Any], rows: int) -> None:
    """What an epoch takes, of the steps of each stage that were measured."""
    spent = found["spent"]
    once = {
        what: sum(seconds for stage in spent.values() for seconds, _ in [stage.get(what, (0, 0))])
        for what in ("reading", "building", "checkpoint")
    }
    epochs = {"propensity": min(16 * rows, o.users * o.items) // o.batch, "game": 10}
    epochs["debias"] = rows // o.batch
    for stage in STAGES:
        step, validation = (
            sum(spent[stage][what][0] / spent[stage][what][1] for what in parts)
            for parts in (("sampling", "replay"), ("validation",))
        )
        epoch = step * epochs[stage] + validation
        share = spent[stage]["sampling"][0] / spent[stage]["sampling"][1] / step
        say(
            f"  {stage:10} a step {step * 1e3:7.0f} ms CPU (sampling {share:.0%}), validation "
            f"{validation:5.1f} s, an epoch of {epochs[stage]:6,} steps {epoch / 60:5.1f} min"
        )
    say("  " + ", ".join(f"{what} {seconds:.1f} s CPU" for what, seconds in once.items()))
    say(
        f"  this run {found['cpu']:.0f} s CPU, {found['wall']:.0f} s wall, "
        f"peak {found['peak'] / 1024:.2f} GiB"
    )


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("users", 1_000_000), ("items", 100_000), ("pairs", 53_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--steps", type=int, default=40, help="of each stage")
    parser.add_argument("--batch", type=int, default=65536, help="rows of O and pairs of D")
    parser.add_argument("--loops", nargs="+", choices=list(LOOPS), default=list(LOOPS))
    parser.add_argument("--folder", help="where the log is generated; a temporary one by default")
    parser.add_argument("words", nargs="*", help="further words for train.py")
    o = parser.parse_args(arguments)
    o.text, o.format = False, "parquet"
    return o


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["--child"]:
        trained(given[1:])
        return
    o = parsed(given)
    command = " ".join(["python tests/benchmarks/fifty_million.py", *given])
    say(f"{command} (cores: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f})")
    with tempfile.TemporaryDirectory(dir=o.folder) as name:
        path = Path(name) / "log.parquet"
        write(path, o)
        rows = written(path)
        say(f"{rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB")
        for loop in o.loops:
            start = time.perf_counter()
            found = child(o, path, Path(name), loop)
            found["wall"] = time.perf_counter() - start
            say(f"{loop}:")
            report(o, found, round(0.9 * rows))


def written(path: Path) -> int:
    """Rows of a Parquet file."""
    import pyarrow.parquet

    count: int = pyarrow.parquet.ParquetFile(path).metadata.num_rows
    return count


if __name__ == "__main__":
    main()
