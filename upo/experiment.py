"""One run: read, train every stage, measure, write."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from torch import Tensor

from upo import distributed
from upo.assembly import build_estimator, build_stage
from upo.data.datamodule import RatingDataModule
from upo.estimator import Estimator
from upo.evaluation import Diagnostics, MarSet
from upo.metrics import Reliability
from upo.modules.callbacks import AtomicCheckpointIO, History, ReplicaSelection, StageProgress
from upo.modules.stage import StageModule
from upo.protocols import Protocol
from upo.seeds import parse_seeds


@dataclass
class StageResult:
    """What a finished stage leaves behind."""

    name: str
    history: History
    best_epoch: Tensor | None  # [R]
    seconds: float
    steps_per_epoch: int


@dataclass
class RunResult:
    """A finished run, before anything is written.

    Attributes:
        estimator: Trained networks, each replica at its selected epoch.
        metrics: Name -> ``[R]`` float64.
        reliability: Bins of the propensity over D; None without a propensity.
        stages: In the order in which they ran.
        seeds: One for each replica.
    """

    estimator: Estimator
    metrics: dict[str, Tensor]
    reliability: Reliability | None
    stages: list[StageResult]
    seeds: list[int]
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Experiment:
    """Builds what a configuration describes and runs it.

    Args:
        config: Composed configuration.
        folder: Where checkpoints go; None to write none.
        loggers: Lightning loggers.
        progress: Draw progress bars.
    """

    def __init__(
        self,
        config: DictConfig,
        folder: Path | None = None,
        loggers: list[Any] | None = None,
        *,
        progress: bool = True,
    ) -> None:
        self.config, self.folder, self.progress = config, folder, progress
        self.loggers = loggers or []
        self.seeds = parse_seeds(config.seeds)
        self.protocol: Protocol = instantiate(config.protocol)
        self.datamodule: RatingDataModule = instantiate(config.dataset)

    def run(self) -> RunResult:
        """Train every stage and measure the result."""
        data = self.datamodule.data
        mar = MarSet(data, self.datamodule.k)
        self.protocol.use(mar)
        space = self.datamodule.pair_space(self.seeds, self.protocol.holdout)
        estimator = build_estimator(self.config.estimator, space)
        start = time.perf_counter()
        stages = []
        for name, plan in self.config.estimator.stages.items():
            if plan is None:  # removed by a schedule
                continue
            module = build_stage(str(name), self.config.estimator, estimator, self.protocol)
            stages.append(self._fit(module, mar))
        seconds = time.perf_counter() - start
        estimator.eval()
        values, reliability = self._measure(estimator, mar)
        return RunResult(estimator, values, reliability, stages, self.seeds, seconds)

    def _fit(self, module: StageModule, mar: MarSet) -> StageResult:
        history, selection = History(), ReplicaSelection(module.plan.patience)
        callbacks: list[L.Callback] = [selection, history]
        if self.progress:
            callbacks.append(StageProgress())
        if self.folder is not None:
            callbacks.append(
                ModelCheckpoint(
                    self.folder / "checkpoints",
                    filename=module.stage,
                    save_on_train_epoch_end=True,
                    enable_version_counter=False,
                )
            )
        module.mar = mar  # moved to the device with the module
        trainer = make_trainer(
            self.config.trainer,
            max_epochs=module.plan.epochs,
            callbacks=callbacks,
            logger=self.loggers or False,
            enable_checkpointing=self.folder is not None,
            progress=self.progress,
        )
        start = time.perf_counter()
        trainer.fit(module, ckpt_path=None)
        selection.restore(module.estimator.networks)
        for role in module.estimator.networks:
            module.estimator.stepped(str(role))
        return StageResult(
            module.stage,
            history,
            selection.best_epoch,
            time.perf_counter() - start,
            module.steps_per_epoch,
        )

    @torch.no_grad()
    def _measure(
        self, estimator: Estimator, mar: MarSet
    ) -> tuple[dict[str, Tensor], Reliability | None]:
        values: dict[str, Tensor] = {}
        reliability = None
        if len(mar):
            values.update(mar.measure(estimator, self.protocol.tested(estimator)))
        if estimator.has_propensity:
            diagnostics = Diagnostics(self.datamodule.data, mar)
            found, reliability = diagnostics.measure(estimator)
            values.update(found)
        return values, reliability


def make_trainer(
    config: DictConfig,
    *,
    max_epochs: int,
    callbacks: list[L.Callback],
    logger: Any,
    enable_checkpointing: bool,
    progress: bool,
) -> L.Trainer:
    """A Lightning trainer for one stage; several processes get the exact strategy."""
    settings = dict(config)
    devices, nodes = settings.get("devices", 1), settings.get("num_nodes", 1)
    several = devices not in (1, "1", [0]) or nodes > 1 or distributed.world_size() > 1
    if several and settings.get("strategy", "auto") == "auto":
        settings["strategy"] = distributed.ExactStrategy()
    return L.Trainer(
        **settings,
        max_epochs=max_epochs,
        callbacks=callbacks,
        logger=logger,
        enable_checkpointing=enable_checkpointing,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=1,
    )
