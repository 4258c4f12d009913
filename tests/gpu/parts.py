"""What is checked on a device, part by part; each gives lines of the table of ``check.py``.

Bounds, of the largest relative difference over results and trained parameters:

- float64: ``DOUBLE``, as sums on a device are taken in another order;
- float32: ``TIMES`` what float32 differs from float64 on the CPU, and ``SINGLE`` where that is
  less; Adam turns rounding of gradients near 0 into moves of a rate, so no fixed bound fits rows
  of all kinds.
"""

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from benchmarks.settings import LOOPS, SETTINGS, finish, generated_log, make_module
from omegaconf import DictConfig

from upo.pairs import Batch
from upo.runs.compose import composed
from upo.runs.config import scheduled
from upo.runs.experiment import Experiment, RunResult
from upo.training.checkpoint import StageCheckpoint
from upo.training.stage import StageModule

DOUBLE, SINGLE, TIMES = 1e-7, 1e-4, 5.0
BFLOAT = 0.05  # of the log-loss, between bf16-mixed and 32-true
DISCRETE = ("ndcg", "f1", "precision", "recall", "clip_share", "ece")  # jump where scores change
SMALL = [
    "dataset.n_users=60",
    "dataset.n_items=50",
    "dataset.density=0.2",
    "seeds=3",
    "progress=false",
    "figures=false",
    "logger=none",
]
EPOCHS, STEPS, LONGER = 2, 4, 10
PRECISE = "64-true"


@dataclass
class Line:
    """A line of the table."""

    check: str
    subject: str
    value: float
    bound: float
    passed: bool | None  # None: nothing to pass, a time
    note: str = ""


class KilledError(Exception):
    """A run that is to be resumed ended here."""


def configured(estimator: str, accelerator: str, *overrides: str, steps: int = STEPS) -> DictConfig:
    words = [*SMALL, f"estimator={estimator}", f"trainer.accelerator={accelerator}", *overrides]
    stages = scheduled(composed(words).estimator)
    length = [f"++estimator.stages.{s}.epochs={EPOCHS}" for s in stages]
    length += [f"++estimator.stages.{s}.steps={steps}" for s in stages]
    return composed([*words, *length])


def trained(estimator: str, accelerator: str, *overrides: str, steps: int = STEPS) -> RunResult:
    config = configured(estimator, accelerator, *overrides, steps=steps)
    return Experiment(config, progress=False).run()


def difference(one: RunResult, other: RunResult) -> float:
    """Largest difference of parameters and of results that are smooth in them, relative to 1."""
    pairs = list(zip(one.estimator.parameters(), other.estimator.parameters(), strict=True))
    pairs += [
        (one.metrics[name], other.metrics[name])
        for name in one.metrics
        if not name.startswith(DISCRETE)
    ]
    return max(map(apart, *zip(*pairs, strict=True)), default=0.0)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    if not torch.equal(a.isfinite(), b.isfinite()):
        return math.inf
    gap = (a - b).abs() / b.abs().clamp(min=1.0)
    return float(gap[a.isfinite()].max()) if bool(a.isfinite().any()) else 0.0


def rows(device: str, names: list[str]) -> Iterator[Line]:
    """Every row on the device against the CPU."""
    for name in names:
        exact, rounded = f"trainer.precision={PRECISE}", "trainer.precision=32-true"
        reference = trained(name, "cpu", exact)
        gap = difference(trained(name, device, exact), reference)
        yield Line("float64", name, gap, DOUBLE, gap <= DOUBLE)
        here = trained(name, "cpu", rounded)
        bound = max(SINGLE, TIMES * difference(here, reference))
        gap = difference(trained(name, device, rounded), here)
        yield Line("float32", name, gap, bound, gap <= bound)


def graphs(device: str, names: list[str]) -> Iterator[Line]:
    """Steps captured as a CUDA graph against steps, where the row can be recorded."""
    if device == "cpu":
        return
    for name in names:
        exact = f"trainer.precision={PRECISE}"
        slow = (exact, "trainer.replay=false", "compile=false")
        plain = trained(name, device, *slow, steps=LONGER)
        kinds: list[object] = []
        keep = partial(_noting, kinds)
        with patched(StageModule, "_steps", keep):
            launched = trained(name, device, exact, "trainer.replay=true", steps=LONGER)
        gap = difference(launched, plain)
        recorded = [kind for kind in kinds if kind is not None]
        captured = [kind for kind in recorded if kind.device_graph is not None]
        note = f"{len(captured)} of {len(kinds)} chunks launched"
        passed = gap <= DOUBLE and len(captured) == len(recorded)
        yield Line("graph", name, gap, DOUBLE, passed, note)


def _noting(kinds: list[object], steps: Callable[..., object]) -> Callable[..., object]:
    """Steps of a chunk, after which it is noted how they were taken."""

    def noted(module: StageModule, batches: list[Batch]) -> object:
        logs = steps(module, batches)
        kinds.append(module._recording)
        return logs

    return noted


def waits(device: str, names: list[str]) -> Iterator[Line]:
    """How often the host waits for the device within a chunk of steps, at most."""
    if device == "cpu":
        return
    for name in names:
        counts: list[int] = []
        with patched(StageModule, "training_step", partial(_counting, counts)):
            trained(name, device)
        yield Line("waits", name, max(counts), 1, max(counts) <= 1)


def _counting(counts: list[int], step: Callable[..., None]) -> Callable[..., None]:
    """A chunk of steps that notes how often PyTorch waits in it."""

    def counted(*given: object) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step(*given)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        counts.append(sum("called a synchronizing" in str(each.message) for each in caught))

    return counted


@contextmanager
def patched(kind: type, name: str, wrap: Callable[..., object]) -> Iterator[None]:
    """A method wrapped within the block."""
    real = getattr(kind, name)
    setattr(kind, name, wrap(real))
    try:
        yield
    finally:
        setattr(kind, name, real)


def resumed(device: str, names: list[str]) -> Iterator[Line]:
    """A run that was killed in the middle of a stage, to the last bit."""
    for number, name in enumerate(names):
        config = configured(name, device, "++trainer.deterministic=true")
        with tempfile.TemporaryDirectory() as folder:
            whole = Experiment(config, Path(folder, "whole"), progress=False).run()
            stopping = partial(_dying, iter(range(number % 3)))
            with suppress(KilledError), patched(StageCheckpoint, "write", stopping):
                Experiment(config, Path(folder, "part"), progress=False).run()
            config.resume = str(Path(folder, "part"))
            again = Experiment(config, Path(folder, "part"), progress=False).run()
        gap = difference(again, whole)
        yield Line("resume", name, gap, 0.0, gap == 0.0, "deterministic=true")


def _dying(left: Iterator[int], write: Callable[..., None]) -> Callable[..., None]:
    """Writing a checkpoint, after the last of which the run ends."""

    def last(*given: object, **named: object) -> None:
        write(*given, **named)
        if next(left, None) is None:
            raise KilledError

    return last


def bfloat(device: str, names: list[str]) -> Iterator[Line]:
    """bf16-mixed is near 32-true."""
    for name in names:
        runs = [
            trained(name, device, "backbone=ncf", f"trainer.precision={precision}")
            for precision in ("bf16-mixed", "32-true")
        ]
        gap = apart(*(run.metrics["log_loss"] for run in runs))
        yield Line("bf16", f"{name}, ncf", gap, BFLOAT, gap <= BFLOAT)


def times(device: str, replicas: list[int]) -> Iterator[Line]:
    """Milliseconds of a step of UPO-DR, all players, over the number of replicas."""
    for number, setting in enumerate(SETTINGS):
        log = generated_log(setting)
        for count in replicas:
            ways = ["step", "replay"] if device == "cpu" else ["step", "replay", "graph"]
            if device != "cpu" and number == 0 and count == replicas[-1]:
                ways.append("compiled")  # with the compiler's half a minute
            for way in ways:
                subject = f"{setting.name}, R = {count}, {way}"
                value = _milliseconds(make_module(setting, *log, count), device, *LOOPS[way])
                yield Line("ms", subject, value / count, math.nan, None, "of a step and replica")


def _milliseconds(module: StageModule, device: str, replay: bool, compiled: bool | None) -> float:
    place = "cuda" if device == "gpu" else "cpu"
    module.to(place)
    module.replay, module.compiled = replay, compiled
    module.training_step((0, 3), 0)  # makes what is made once
    size, least = min(32, module.train_dataloader().size), math.inf
    for turn in range(3):
        finish(place)
        start = time.perf_counter()
        module.training_step((3 + turn * size, size), 0)
        finish(place)
        least = min(least, (time.perf_counter() - start) * 1e3 / size)
    return least
