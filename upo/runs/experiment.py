"""One run: read, train every stage, measure, write."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from itertools import takewhile
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from hydra.utils import instantiate
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from upo.core.memory import freed_memory_kept
from upo.core.optim import part_of_stack
from upo.core.seeds import parse_seeds
from upo.core.shards import sharded
from upo.data.datamodule import RatingDataModule
from upo.data.rating_data import RatingData
from upo.data.withheld import Withheld, withhold
from upo.errors import InputError
from upo.evaluation.diagnostics import Diagnosis, Diagnostics
from upo.evaluation.groups import Group
from upo.evaluation.mar import MarSet
from upo.evaluation.protocols import Protocol
from upo.models.estimator import Estimator
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage, part_of
from upo.runs.config import check, scheduled, target_name
from upo.runs.crossfit import Build, OutOfFold, Train, calibrate, check_schedule, cross_fitted
from upo.runs.fitting import StageFitting, StageResult
from upo.runs.known_settings import by_replica
from upo.runs.measured import Measured, measured
from upo.runs.refit import check_refit, lengths_of, plan_of, start
from upo.training.debiasing import DebiasingModule
from upo.training.plan import LAST
from upo.training.settings import time_limit, trial_steps
from upo.training.stack import REMEDY
from upo.training.stage import StageModule
from upo.training.tables import check_spread, shard_of
from upo.training.trainer import companions, settle, switch

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class RunResult:
    """A finished run, before anything is written.

    Attributes:
        estimator: Trained networks, each replica at its selected epoch; failed ones are left out.
        metrics: Name -> ``[R]`` float64, NaN where a replica failed.
        beside: Columns that stand behind the others; the same shape.
        users: Test users ``[U]`` and what each of them adds to the test metrics, ``[4, r, U]`` of
            the r replicas that did not fail; None without a test set.
        groups: Test metrics of users and items by activity, of the same replicas.
        diagnosis: What was found over D; None without a propensity.
        stages: In the order in which they ran.
        seeds: One for each replica, failed ones included.
        failures: Number of a replica -> what became of it, of those that diverged.
        out_of_fold: What a calibrated propensity says of pairs that it has not seen, by the same
            replicas as ``estimator``; None without a calibration, and if it was resumed.
    """

    estimator: Estimator
    metrics: dict[str, Tensor]
    diagnosis: Diagnosis | None
    stages: list[StageResult]
    seeds: list[int]
    seconds: float
    failures: dict[int, str]
    beside: dict[str, Tensor] = field(default_factory=dict)
    users: tuple[Tensor, Tensor] | None = None
    groups: list[Group] = field(default_factory=list)
    out_of_fold: OutOfFold | None = None

    @property
    def healthy(self) -> list[int]:
        """Seeds of the replicas that did not fail."""
        return [seed for r, seed in enumerate(self.seeds) if r not in self.failures]


def spread_as_asked(
    run: Callable[Concatenate["Experiment", P], T],
) -> Callable[Concatenate["Experiment", P], T]:
    """Let tables that are made in a method of an experiment be spread where ``trainer`` says so."""

    @wraps(run)
    def method(self: "Experiment", /, *args: P.args, **kwargs: P.kwargs) -> T:
        with sharded(self.shard):
            return run(self, *args, **kwargs)

    return method


class Experiment:
    """Builds what a configuration describes and runs it.

    Args:
        config: Composed configuration.
        folder: Where checkpoints go; None to write none.
        datamodule: The data; those of the configuration if not given.
        seeds: One for each replica; those of the configuration if not given.
        progress: Draw progress bars.
        length: Share of each stage's epochs that are trained at most, in (0, 1].
    """

    def __init__(
        self,
        config: DictConfig,
        folder: Path | None = None,
        *,
        datamodule: RatingDataModule | None = None,
        seeds: list[int] | None = None,
        progress: bool = True,
        length: float = 1.0,
    ) -> None:
        check(config)
        settle(config.trainer)
        self.config, self.folder, self.progress = config, folder, progress
        self.shard = shard_of(config.trainer)
        self.length = length
        self.seeds = parse_seeds(config.seeds) if seeds is None else seeds
        self.protocol: Protocol = instantiate(config.protocol)
        self.protocol.lend(float(config.estimator.get("lent") or 0.0), config.estimator.name)
        self.datamodule = instantiate(config.dataset) if datamodule is None else datamodule
        self.trial_steps = trial_steps(config.trainer)
        self.limit = time_limit(config.trainer)
        if self.limit is not None and folder is None:
            raise InputError(
                "trainer.max_time stops a run so that it can be resumed from its folder, and this "
                "one has none; leave it out."
            )

    @property
    def data(self) -> RatingData:
        """What is learned from: the dataset without the cells that are kept back."""
        return self._kept[0]

    @property
    def withheld(self) -> Withheld | None:
        """The cells that are kept back, where there are any."""
        return self._kept[1]

    @cached_property
    def _kept(self) -> tuple[RatingData, Withheld | None]:
        return withhold(self.datamodule.data, self.config.propensity.get("withhold", 0.0))

    @property
    def label(self) -> str:
        """What results say of how they came about."""
        target = target_name(self.config.estimator)
        label = self.protocol.label + ("" if target == "positive" else f" ({target})")
        if not self.trial_steps:
            return label
        return f"{label} (trial of {self.trial_steps} steps: fast_dev_run)"

    def anew(
        self, config: DictConfig, *, seeds: list[int] | None = None, length: float | None = None
    ) -> "Experiment":
        """Another experiment on the same data.

        Args:
            config: Its configuration.
            seeds: Its seeds, if others: it is a trial then and has no folder.
            length: Its length, if another.
        """
        return Experiment(
            config,
            self.folder if seeds is None else None,
            datamodule=self.datamodule,
            seeds=self.seeds if seeds is None else seeds,
            progress=self.progress,
            length=self.length if length is None else length,
        )

    def tried(
        self, settings: Sequence[Mapping[str, Any]], seeds: Sequence[int], *, length: float = 1.0
    ) -> StageResult:
        """Settings trained side by side, each with every seed: replicas of a run without a folder.

        Args:
            settings: Values by dotted key, of each; all of the same keys.
            seeds: The same for all.
            length: Share of a run's epochs.

        Returns:
            The last stage; its ``best`` has the seeds of the first settings first.

        Raises:
            InputError: If the last stage selects nothing by which to compare them, or all diverge.
        """
        config = self.config.copy()
        listed = [key for key in by_replica(config) if key not in settings[0]]
        if listed:
            raise InputError(
                f"{listed[0]} has a value for each replica, and settings are tried as replicas, "
                "with one value for all; give one, or neither search nor set auto=true."
            )
        if "max_time" in config.trainer:  # which ends a run that its folder can go on with
            del config.trainer.max_time
        for key in settings[0]:
            OmegaConf.update(config, key, [each[key] for each in settings for _ in seeds])
        trial = self.anew(config, seeds=[*seeds] * len(settings), length=length)
        stage = trial.run(measure=False).stages[-1]
        if stage.best is None:
            raise InputError(
                "Settings are compared by a last stage that selects; see estimator.stages."
            )
        return stage

    @companions()
    @spread_as_asked
    def run(self, *, loggers: Sequence[Logger] = (), measure: bool = True) -> RunResult:
        """Train every stage and measure the result.

        Args:
            loggers: Lightning loggers.
            measure: Read the test set and the diagnostics at the end.
        """
        mar, estimator, first, then = self._prepared(self.protocol.holdout)
        fitting = self._fitting()
        refit = measure and self.config.refit
        if refit:
            check_refit(estimator, self.protocol.name)
        if "calibration" in estimator.networks:
            check_schedule(estimator, then, self.config.propensity.folds)
        with freed_memory_kept():
            stages = [fitting.fit(module, loggers) for module in first]
            out_of_fold, seconds = self._calibrate(estimator, then, mar, fitting)
            stages += [fitting.fit(module, loggers) for module in then]
        estimator.eval()
        failures = fitting.failures
        if failures:
            healthy = [r for r in range(len(self.seeds)) if r not in failures]
            estimator = part_of(estimator, self.config.estimator, healthy)
            if out_of_fold is not None:
                p = out_of_fold.propensity[healthy]
                out_of_fold = out_of_fold._replace(propensity=p)
        selected = estimator
        if refit:
            with freed_memory_kept():
                estimator, more = self._refit(selected, then, stages[len(first) :], mar, fitting)
            seconds += more
        found = Measured()
        if measure:
            modules = [*first, *then]
            found = measured(
                estimator,
                self.config,
                self.data,
                mar,
                self.protocol,
                modules,
                self.withheld,
                selected=selected,
            )
        host = torch.device("cpu")
        found = move_data_to_device(found, host)
        return RunResult(
            estimator=estimator.to(host),
            metrics=self._columns(found.values, failures),
            beside=self._columns(found.beside, failures),
            users=found.users,
            groups=found.groups,
            diagnosis=found.diagnosis,
            stages=stages,
            seeds=self.seeds,
            seconds=seconds + sum(stage.seconds for stage in stages),
            failures=failures,
            out_of_fold=out_of_fold,
        )

    def _refit(
        self,
        selected: Estimator,
        then: list[StageModule],
        results: Sequence[StageResult],
        mar: MarSet,
        fitting: StageFitting,
    ) -> tuple[Estimator, float]:
        """The selected networks trained on all rows for the selected epochs, and the seconds.

        Raises:
            InputError: If a replica diverges that did not while it was selected.
        """
        healthy = [r for r in range(len(self.seeds)) if r not in fitting.failures]
        seeds = [self.seeds[r] for r in healthy]
        config, target = self.config.estimator, target_name(self.config.estimator)
        space = PairSpace.of(self.data, seeds, 0.0, target)
        again = self._fitting()
        again.deadline = fitting.deadline
        seconds = 0.0
        with part_of_stack(healthy, len(self.seeds)):
            fresh = build_estimator(config, space).to(selected.dtype)
            start(fresh, selected, then)
            for stage, result in zip(then, results, strict=True):
                lengths = lengths_of(result, healthy)
                module = build_stage(
                    stage.stage,
                    config,
                    fresh,
                    self.protocol,
                    plan=plan_of(stage, lengths),
                    lengths=lengths,
                    mar=mar,
                    replay=stage.replay,
                    compiled=stage.compiled,
                )
                seconds += again.fit(module).seconds
        if again.failures:
            raise InputError(f"refit=true: {next(iter(again.failures.values()))}; {REMEDY}")
        return fresh.eval(), seconds

    def _columns(
        self, values: Mapping[str, Tensor], failures: Mapping[int, str]
    ) -> dict[str, Tensor]:
        return {name: self._of_all(value, failures) for name, value in values.items()}

    def _of_all(self, value: Tensor, failures: Mapping[int, str]) -> Tensor:
        """``[R]`` values of which there are those of the replicas that did not fail."""
        if not failures or not value.dim():
            return value
        whole = value.new_full((len(self.seeds),), torch.nan)
        whole[[r for r in range(len(whole)) if r not in failures]] = value
        return whole

    @companions()
    @spread_as_asked
    def run_propensity(self) -> RunResult:
        """Train and calibrate the propensity alone; the prediction stays as it starts.

        Raises:
            InputError: If the propensity is learned beside the prediction, or a replica diverges.
        """
        mar, estimator, first, then = self._prepared(0.0)
        data, fitting = self.data, self._fitting()
        check_schedule(estimator, then, self.config.propensity.folds)
        with freed_memory_kept():
            stages = [fitting.fit(module) for module in first]
            out_of_fold, seconds = self._calibrate(estimator, then, mar, fitting)
        if fitting.failures:
            raise InputError(next(iter(fitting.failures.values())))
        estimator.eval()
        with torch.no_grad():
            diagnosis = Diagnostics(data, mar).measure(estimator)
        balanced = any(features is not None for features in data.features)
        wanted = ("ece", "bmse") if balanced else ("ece",)
        values = {name: x.cpu() for name, x in diagnosis.columns.items() if name in wanted}
        seconds += sum(stage.seconds for stage in stages)
        host = torch.device("cpu")
        return RunResult(
            estimator=estimator.to(host),
            metrics=values,
            diagnosis=move_data_to_device(diagnosis, host),
            stages=stages,
            seeds=self.seeds,
            seconds=seconds,
            failures={},
            out_of_fold=out_of_fold,
        )

    @companions()
    @spread_as_asked
    def cross_fitted(self) -> Tensor:
        """``[R, N]`` propensities of the log's rows by copies that did not see their part of D.

        Raises:
            InputError: If the propensity is learned beside the prediction, or a replica diverges.
        """
        mar, estimator, _, then = self._prepared(0.0)
        fitting, folds = self._fitting(), self.config.propensity.folds
        check_schedule(estimator, then, folds)
        with freed_memory_kept():
            found = cross_fitted(estimator, folds, self._copies(mar), self._of_copies(fitting))
        if fitting.failures:
            raise InputError(next(iter(fitting.failures.values())))
        return found.cpu()

    def _prepared(
        self, holdout: float
    ) -> tuple[MarSet, Estimator, list[StageModule], list[StageModule]]:
        """The test sample; an untrained estimator, its stages before the prediction, and others."""
        data = self.data
        mar = MarSet(data, self.datamodule.k)
        target = target_name(self.config.estimator)
        self.protocol.use(mar, target)
        held = self.protocol.held(data) if holdout else None
        space = PairSpace.of(data, self.seeds, holdout, target, held)
        estimator, modules = self._built(self.config.estimator, space, mar)
        if self.shard is not None:
            check_spread(estimator, modules)
        first = [*takewhile(lambda module: not isinstance(module, DebiasingModule), modules)]
        return mar, estimator, first, modules[len(first) :]

    def _fitting(self) -> StageFitting:
        return StageFitting(
            self.config,
            self.folder,
            progress=self.progress,
            trial_steps=self.trial_steps,
            limit=self.limit,
        )

    def _built(
        self, config: DictConfig, space: PairSpace, mar: MarSet
    ) -> tuple[Estimator, list[StageModule]]:
        """An estimator, nothing trained, and its stages in order."""
        estimator = build_estimator(config, space)
        replay = switch("trainer.replay", self.config.trainer.get("replay", "auto"))
        compiled = switch("compile", self.config.compile)
        modules = [
            build_stage(
                name, config, estimator, self.protocol, mar=mar, replay=replay, compiled=compiled
            )
            for name in scheduled(config)
        ]
        for module in modules:
            module.plan = replace(module.plan, epochs=math.ceil(self.length * module.plan.epochs))
        return estimator, modules

    def _calibrate(
        self, estimator: Estimator, then: list[StageModule], mar: MarSet, fitting: StageFitting
    ) -> tuple[OutOfFold | None, float]:
        """Fit the calibration, if there is one, unless a later checkpoint has it; its seconds."""
        if "calibration" not in estimator.networks:
            return None, 0.0
        if self.config.resume and any(fitting.has_begun(module) for module in then):
            return None, 0.0
        start = time.perf_counter()
        folds = self.config.propensity.folds
        found = calibrate(estimator, folds, self._copies(mar), self._of_copies(fitting))
        return found, time.perf_counter() - start

    def _copies(self, mar: MarSet) -> Build:
        """Builds untrained copies of the propensity, with their stages, that leave cells out."""
        config = self.config.estimator.copy()
        with open_dict(config):
            config.calibrate = "none"
            for name in scheduled(config):
                plan = config.stages[name]
                if plan.module == "debiasing":
                    config.stages[name] = None
                elif not plan.get("select"):
                    plan.select = LAST  # a copy leaves its fold of D out
        return lambda space: self._built(config, space, mar)

    @staticmethod
    def _of_copies(fitting: StageFitting) -> Train:
        """Trains the stages of copies, which have no checkpoints."""

        def train(module: StageModule) -> None:
            fitting.fit(module, kept=False)

        return train
