"""``auto=true``: a run tries a handful of settings on its own held-out rows and keeps the best.

No single penalty and rate is best on every log (``docs/defaults.md``), and replicas are cheap. So
one seed is trained with every candidate of the backbone as a replica, for a part of a run's length;
the protocol judges them as it judges epochs, and the run goes on with the best for all its seeds.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from upo.core.console import first_process
from upo.core.dotted import dotted
from upo.core.files import write_atomically
from upo.errors import InputError
from upo.runs.experiment import Experiment

LENGTH = 0.25  # of a run's epochs, for a candidate
MOST = 8  # candidates
FILE = "auto.json"


@dataclass(frozen=True)
class Choice:
    """What was tried and what was kept.

    Attributes:
        tried: Each candidate's value of every key.
        values: Each candidate's selection value, lower is better.
        best: Which candidate was kept.
        monitor: What the values are.
        seconds: What trying took.
    """

    tried: list[dict[str, float]]
    values: list[float]
    best: int
    monitor: str
    seconds: float

    @property
    def kept(self) -> dict[str, float]:
        """Key -> value of the candidate that was kept."""
        return self.tried[self.best]

    def __str__(self) -> str:
        names = [key.removeprefix("estimator.learners.prediction.") for key in self.kept]
        wide = max(12, *(len(name) + 2 for name in names))
        head = "".join(f"{name:>{wide}}" for name in (*names, self.monitor))
        lines = [f"auto=true tried {len(self.tried)} settings in {self.seconds:.1f} s:", head]
        for number, (tried, value) in enumerate(zip(self.tried, self.values, strict=True)):
            cells = "".join(f"{each:>{wide}.4g}" for each in tried.values())
            mark = "  <- kept" if number == self.best else ""
            lines.append(f"{cells}{value:>{wide}.5f}{mark}")
        return "\n".join(lines)


def preferred(experiment: Experiment) -> tuple[Experiment, Choice | None]:
    """The experiment with the settings that its own held-out rows prefer.

    Args:
        experiment: Ready to run. With a run folder that has chosen before, that choice is taken.

    Returns:
        An experiment of the same data, and what was chosen; the same one and None unless
        ``auto=true``.

    Raises:
        InputError: If the backbone names no candidates, or too many.
    """
    if not experiment.config.auto:
        return experiment, None
    folder = experiment.folder
    path = None if folder is None else folder / FILE
    if path is not None and experiment.config.resume and path.is_file():
        choice = _read(path)
    else:
        choice = _try(experiment)
        if path is not None and first_process():
            write_atomically(path, json.dumps(asdict(choice), indent=2) + "\n")
    config = experiment.config.copy()
    for key, value in choice.kept.items():
        OmegaConf.update(config, key, value)
    return experiment.anew(config), choice


def _try(experiment: Experiment) -> Choice:
    candidates = _candidates(experiment.config)
    start = time.perf_counter()
    # one process computes what many do, so each comes to the same choice
    stage = experiment.tried(candidates, experiment.seeds[:1], length=LENGTH)
    assert stage.best is not None  # by which they were compared
    values = [float(value) for value in stage.best]
    finite = [n for n, value in enumerate(values) if not math.isnan(value)]  # others diverged
    best = min(finite, key=values.__getitem__)
    seconds = round(time.perf_counter() - start, 3)
    return Choice(candidates, values, best, stage.monitor, seconds)


def _candidates(config: DictConfig) -> list[dict[str, float]]:
    """Each candidate's values: those of the configuration times the backbone's multiples."""
    node = config.estimator.get("candidates")
    tree: Any = {} if node is None else OmegaConf.to_container(node, resolve=True)
    multiples = dict(dotted(tree, "estimator."))
    lengths = {len(each) for each in multiples.values()}
    if len(lengths) != 1 or not 2 <= min(lengths) <= MOST:
        got = ", ".join(f"{key}: {len(each)}" for key, each in multiples.items()) or "none"
        raise InputError(
            f"auto=true tries the settings under estimator.candidates of backbone="
            f"{config.estimator.backbone}: lists of one length, of 2 to {MOST} numbers; got {got}."
        )
    columns = {}
    for key, factors in multiples.items():
        value = OmegaConf.select(config, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(
                f"auto=true multiplies {key}, which is {value!r} and no number; set a number or "
                "leave auto out."
            )
        columns[key] = [float(f"{value * factor:.6g}") for factor in factors]
    size = lengths.pop()
    return [{key: values[n] for key, values in columns.items()} for n in range(size)]


def _read(path: Path) -> Choice:
    try:
        return Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); run anew.") from error
