"""A search for hyperparameters: rounds of trials that train together, as replicas of one stack.

Optuna's TPE proposes each round from the rounds before. Every row has the same budget: trials,
seeds of each, and a run's own length. What is known lies in Optuna's storage, so a killed search
goes on with the trials that it has, and proposes what it would have proposed.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm

from upo.core.given import path_of, whole
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.runs.experiment import Experiment
from upo.runs.search_space import Range, Space
from upo.runs.tuned import fingerprint
from upo.training.stack import DivergenceError

Values = dict[str, Any]  # dotted key -> value
Judge = Callable[[Values, Sequence[Values]], Sequence[float]]


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
            object.__setattr__(self, name, whole(name, value, 1, 16))

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
    path = path_of("study", file)
    plain = OmegaConf.to_yaml(config, resolve=True)
    searched = sorted(space.ranges.items()), sorted(space.structure.items())
    text = f"{plain}{searched!r}{budget.batch} {budget.seeds} {fingerprint(data)}"
    name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(path)))
        return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    except OSError as error:
        raise InputError(
            f"study={path} cannot be written ({error.strerror or error}); name a file that can be."
        ) from error


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
        try:
            stage = experiment.anew(config).tried(trials, range(seeds))
        except DivergenceError:  # every one of them
            return [math.nan] * len(trials)
        assert stage.best is not None  # by which they were compared
        return [float(value) for value in stage.best.view(len(trials), seeds).double().mean(-1)]

    return judge


def searched(
    experiment: Experiment,
    study: optuna.Study,
    space: Space,
    budget: Budget,
    *,
    label: str | None = None,
    progress: bool = True,
) -> Found:
    """Search on an experiment's data, with a bar of the trials.

    Args:
        experiment: What is tuned.
        study: As of ``search``.
        space: What is searched.
        budget: How many trials.
        label: In front of the bar.
        progress: Draw it.

    Raises:
        InputError: If every trial diverges.
    """
    with tqdm(total=budget.trials, unit="trial", desc=label, disable=not progress) as bar:

        def after(done: int, best: float) -> None:
            bar.update(done - bar.n)
            bar.set_postfix(best=f"{best:.5f}")

        return search(study, space, budget, judge_with(experiment, budget.seeds), after)
