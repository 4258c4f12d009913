"""A search for hyperparameters: rounds of trials that train together, as replicas of one stack.

Optuna's TPE proposes each round from the rounds before. Every row has the same budget: trials,
seeds of each, and a run's own length. What is known lies in Optuna's storage, so a killed search
goes on with the trials that it has, and proposes what it would have proposed.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from omegaconf import DictConfig, ListConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.runs.config import scheduled
from upo.runs.experiment import Experiment
from upo.runs.tuned import fingerprint
from upo.training.stack import DivergenceError

EDGE = 0.05  # of a range, on its own scale: what lies nearer to an end lies at it
WIDER = 4.0  # an end on a log scale moves by this factor, once
NONE = 3.0  # below `low` of kind log0, down to low / 3, a value is 0
KINDS = ("log", "log0", "linear")

Values = dict[str, Any]  # dotted key -> value
Judge = Callable[[Values, Sequence[Values]], Sequence[float]]


@dataclass(frozen=True)
class Range:
    """Where a value is looked for.

    Attributes:
        low: Lower end.
        high: Upper end, above it.
        kind: ``log``, ``linear``, or ``log0``: logarithmic, with 0 below the lower end.
        limits: What values may not pass, however the range is widened.
    """

    low: float
    high: float
    kind: str
    limits: tuple[float, float] = (-math.inf, math.inf)

    @property
    def _start(self) -> float:
        return self.low / NONE if self.kind == "log0" else self.low

    def distribution(self) -> FloatDistribution:
        """As Optuna draws from it."""
        return FloatDistribution(self._start, self.high, log=self.kind != "linear")

    def value(self, drawn: float) -> float:
        """The value that a trial has: four digits, so that files hold what was tried."""
        return 0.0 if self.kind == "log0" and drawn < self.low else float(f"{drawn:.4g}")

    def edge(self, drawn: float) -> str | None:
        """``low`` or ``high`` if a draw lies at that end; 0 is no edge.

        >>> [Range(0.01, 1.0, "log").edge(x) for x in (0.0101, 0.1, 0.99)]
        ['low', None, 'high']
        """
        ends = (self._start, drawn, self.high)
        a, x, b = ends if self.kind == "linear" else map(math.log, ends)
        place = (x - a) / (b - a)
        if place > 1 - EDGE:
            return "high"
        return "low" if place < EDGE and self.kind != "log0" else None

    def widened(self, end: str) -> "Range":
        """The range with one end moved, as far as the limits allow."""
        step = (self.high - self.low) / 2
        if end == "high":
            high = self.high + step if self.kind == "linear" else self.high * WIDER
            return replace(self, high=min(high, self.limits[1]))
        low = self.low - step if self.kind == "linear" else self.low / WIDER
        return replace(self, low=max(low, self.limits[0]))


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        ranges: Dotted key -> range, of values that each trial has of its own.
        structure: Dotted key -> choices, of values that all trials of a round share.
        left_out: Keys of the search that this estimator does not have, or that are given.
    """

    ranges: dict[str, Range]
    structure: dict[str, list[Any]]
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Budget:
    """What a search may cost, the same for every row.

    Attributes:
        trials: In all, at least 1; those that diverge count.
        batch: Trials of a round, at least 1.
        seeds: Of each trial, at least 1.
    """

    trials: int
    batch: int
    seeds: int

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("batch", self.batch), ("seeds", self.seeds)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(
                    f"{name} must be a whole number of at least 1, got {value!r}; try 16."
                )

    def __str__(self) -> str:
        rounds = -(-self.trials // self.batch)
        return f"{self.trials} trials in {rounds} rounds, {self.seeds} seeds each"


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        overrides: Dotted key -> value of the best trial.
        value: Its selection value, lower is better.
        trials: A row for each trial: its value (NaN where it diverged), state and settings.
        remarks: Sentences: values at an edge of their range, trials that diverged.
    """

    overrides: Values
    value: float
    trials: pd.DataFrame
    remarks: list[str]


def space_of(base: DictConfig, search: DictConfig, given: Sequence[str]) -> Space:
    """The part of a search that an estimator has.

    Args:
        base: Composed configuration.
        search: ``space``, ``structure`` and ``limits`` of a file of ``conf/search``; a part's own,
            under ``estimator.search``, is added to it.
        given: Dotted keys that are set, and so not searched.

    Raises:
        InputError: If nothing is left, or a range is none.
    """
    own = base.estimator.get("search")
    if own is not None:
        merged = OmegaConf.merge(OmegaConf.to_container(search), own)  # not closed to new keys
        assert isinstance(merged, DictConfig)  # mappings, both
        search = merged
    limits, keys = search.get("limits") or {}, _Keys(base)
    ranges, structure, left_out = {}, {}, []
    for key, entry in (search.get("space") or {}).items():
        if key not in given and str(key) in keys:
            ranges[str(key)] = _range(str(key), entry, limits.get(key))
        else:
            left_out.append(str(key))
    for key, choices in (search.get("structure") or {}).items():
        if key not in given and str(key) in keys:
            structure[str(key)] = list(choices)
        else:
            left_out.append(str(key))
    if not ranges:
        raise InputError("Nothing is left to search: every key of the search is overridden.")
    return Space(ranges, structure, left_out)


class _Keys:
    """Which keys are numbers that an estimator reads, and reads nowhere else.

    Args:
        config: Composed configuration; it is copied.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config.copy()
        self.players = _players(self.config)

    def __contains__(self, key: str) -> bool:
        """One within a reference is searched where that leads; one that moves nothing, nowhere."""
        *above, last = key.split(".")
        node: Any = self.config
        for part in above:
            if not isinstance(node, DictConfig) or part not in node:
                return False
            if OmegaConf.is_interpolation(node, part):
                return False
            node = node[part]
        value = OmegaConf.select(self.config, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        before = OmegaConf.to_container(node)
        assert isinstance(before, dict)
        node[last] = value + 1
        moved = _players(self.config) != self.players
        node[last] = before[last]
        return moved


def _players(config: DictConfig) -> list[Any]:
    """What an estimator consists of: its networks, its parts, and the learners that play."""
    estimator = config.estimator
    names = {name for stage in scheduled(estimator) for name in _named(estimator.stages[stage])}
    learners = [estimator.learners[name] for name in sorted(names) if name in estimator.learners]
    parts = [estimator.get(part) for part in ("networks", "weighting", "form", "bins")]
    nodes = [node for node in [*parts, *learners] if node is not None]
    return [OmegaConf.to_container(node, resolve=True) for node in nodes]


def _named(stage: DictConfig) -> list[str]:
    return [*(stage.get("first") or []), *(stage.get("learners") or [])]


def _range(key: str, entry: Any, limits: Any) -> Range:
    try:
        low, high, kind = entry
        least, most = limits or (-math.inf, math.inf)
        found = Range(float(low), float(high), str(kind), (float(least), float(most)))
        if kind not in KINDS or not low < high or (kind != "linear" and not low > 0):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise InputError(
            f"space of the search: {key} must be [low, high, kind] with low < high and a kind of "
            f"{', '.join(KINDS)} (low > 0 but for linear), got {entry}."
        ) from error
    return found


def open_study(
    file: str | Path | None, config: DictConfig, space: Space, budget: Budget, data: RatingData
) -> optuna.Study:
    """A new study, or the one that a file has of this search: all but the number of trials counts.

    Args:
        file: The file that keeps it; None for none.
        config: What is tuned.
        space: What is searched.
        budget: Of the search.
        data: The log.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if file is None:
        return optuna.create_study()
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    plain = OmegaConf.to_yaml(config, resolve=True)
    searched = sorted(space.ranges.items()), sorted(space.structure.items())
    text = f"{plain}{searched!r}{budget.batch} {budget.seeds} {fingerprint(data)}"
    name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    storage = JournalStorage(JournalFileBackend(str(file)))
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that have had their turn: finished or diverged, not those of a killed round."""
    trials = study.get_trials(deepcopy=False)
    return [
        t
        for t in trials
        if t.state == TrialState.COMPLETE
        or (t.state == TrialState.FAIL and t.user_attrs.get("diverged"))
    ]


def search(
    study: optuna.Study,
    space: Space,
    budget: Budget,
    judge: Judge,
    after_round: Callable[[int, float], None] = lambda done, best: None,
) -> Found:
    """Run the rounds that are left, and read the study.

    Args:
        study: Empty, or of a search of the same space that was killed.
        space: What is searched.
        budget: How many trials.
        judge: Values of a round's trials, lower is better, NaN where one diverged.
        after_round: Told the trials done and the best value.

    Raises:
        InputError: If every trial diverges.
    """
    for left in study.get_trials(deepcopy=False):
        if left.state == TrialState.RUNNING:  # of a round that was killed
            study.tell(left.number, state=TrialState.FAIL)
    while (done := len(counted(study))) < budget.trials:
        ranges = _widen_once(study, space, done, budget)
        trials, shared = _ask(study, ranges, space.structure, budget, done)
        settings = [{key: r.value(t.params[key]) for key, r in ranges.items()} for t in trials]
        for trial, each in zip(trials, settings, strict=True):
            trial.set_user_attr("values", {**shared, **each})
        for trial, value in zip(trials, judge(shared, settings), strict=True):
            if math.isfinite(value):
                study.tell(trial, value)
            else:
                trial.set_user_attr("diverged", True)
                study.tell(trial, state=TrialState.FAIL)
        best = _best(study)
        after_round(len(counted(study)), math.nan if best is None else _value(best))
    return _found(study, space)


def _ask(
    study: optuna.Study,
    ranges: Mapping[str, Range],
    structure: Mapping[str, list[Any]],
    budget: Budget,
    done: int,
) -> tuple[list[optuna.Trial], Values]:
    """The trials of a round, and what they share. The first one chooses that."""
    # of the number of trials alone, so that a search that goes on proposes the same
    tpe = optuna.samplers.TPESampler(seed=done, n_startup_trials=budget.batch, constant_liar=True)
    floats = {key: each.distribution() for key, each in ranges.items()}
    shapes = {key: CategoricalDistribution(choices) for key, choices in structure.items()}
    asked: dict[str, BaseDistribution] = {**shapes, **floats}
    study.sampler = tpe
    trials = [study.ask(asked)]
    shared = {key: trials[0].params[key] for key in structure}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.PartialFixedSampler(shared, tpe) if shared else tpe
    while len(trials) < min(budget.batch, budget.trials - done):
        trials.append(study.ask(asked))
    return trials, shared


def _widen_once(study: optuna.Study, space: Space, done: int, budget: Budget) -> dict[str, Range]:
    """The ranges of a round: in the second half, wider where the best of the first lies at an edge.

    The budget stays what it is.
    """
    best = _best(study)
    ends = study.user_attrs.get("widened")
    if ends is None and 2 * done >= budget.trials and best is not None:
        ends = _edges(best, space.ranges)
        study.set_user_attr("widened", ends)
    return _widened(space.ranges, ends or {})


def _widened(ranges: Mapping[str, Range], ends: Mapping[str, str]) -> dict[str, Range]:
    return {key: r.widened(ends[key]) if key in ends else r for key, r in ranges.items()}


def _edges(trial: FrozenTrial, ranges: Mapping[str, Range]) -> dict[str, str]:
    found = {key: r.edge(trial.params[key]) for key, r in ranges.items() if key in trial.params}
    return {key: end for key, end in found.items() if end is not None}


def _best(study: optuna.Study) -> FrozenTrial | None:
    known = [t for t in counted(study) if t.value is not None]
    return min(known, key=_value, default=None)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # complete
    return trial.value


def _found(study: optuna.Study, space: Space) -> Found:
    best, trials = _best(study), counted(study)
    if best is None:
        raise InputError(
            f"All {len(trials)} trials diverged; search lower learning rates, or smaller starts."
        )
    ends = study.user_attrs.get("widened") or {}
    ranges = _widened(space.ranges, ends)
    remarks = []
    for key, end in _edges(best, ranges).items():
        r = ranges[key]
        again = ", though it was widened" if key in ends else ""
        remarks.append(
            f"{key}={best.user_attrs['values'][key]:g} lies at the {end} edge of its range "
            f"{r.low:g}..{r.high:g}{again}; a wider one may hold a better value."
        )
    lost = sum(t.state == TrialState.FAIL for t in trials)
    if lost:
        remarks.append(f"{lost} of {len(trials)} trials diverged, and are marked as failed.")
    frame = pd.DataFrame(
        [
            {
                "trial": number,
                "value": math.nan if t.value is None else t.value,
                "state": "failed" if t.value is None else "complete",
                **t.user_attrs["values"],
            }
            for number, t in enumerate(trials)
        ]
    )
    return Found(dict(best.user_attrs["values"]), _value(best), frame, remarks)


def judge_with(experiment: Experiment, seeds: int) -> Judge:
    """Judges trials by the protocol at their best epochs, as replicas of one run.

    Args:
        experiment: What is tuned; its data are read once.
        seeds: Of each trial, the same for all; the mean over them counts.
    """

    def judge(shared: Values, trials: Sequence[Values]) -> list[float]:
        config = experiment.config.copy()
        for key, value in shared.items():
            OmegaConf.update(config, key, value)
        for key in trials[0]:
            each = [trial[key] for trial in trials for _ in range(seeds)]
            OmegaConf.update(config, key, ListConfig(each))
        numbers = [seed for _ in trials for seed in range(seeds)]
        try:
            stage = experiment.anew(config, seeds=numbers).run(measure=False).stages[-1]
        except DivergenceError:  # every one of them
            return [math.nan] * len(trials)
        if stage.best is None:
            raise InputError("A search needs a last stage that selects; see estimator.stages.")
        return [float(value) for value in stage.best.view(len(trials), seeds).double().mean(-1)]

    return judge
