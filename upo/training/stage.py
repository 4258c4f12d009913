"""What both LightningModules share: run a list of learners, in order, on counter-based batches."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import lightning as L  # noqa: N812
import torch
from torch import Tensor, nn

from upo.learners.base import Learner
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler
from upo.training.compiled import CompiledStep, CompilerError, compiling_pays
from upo.training.plan import StagePlan as StagePlan
from upo.training.recording import Recording, recording_pays, replayable
from upo.training.stack import REMEDY, DivergenceError, calm, diverged, hand_over, put_back

UNRECORDED = "run one by one, as some part is not marked replayable (docs/speed.md)."
LEAST_LEAVING = 4  # one in so many: a smaller stack is built in .1 s, and recorded in .5 s more
CHUNK_STEPS = 128
CHUNK_PAIRS = 2**22  # pairs whose indices are held at once


class Chunks:
    """Chunks ``(first step, steps)`` that together make ``total`` steps."""

    def __init__(self, total: int, size: int) -> None:
        self.total, self.size = total, size

    def __len__(self) -> int:
        return -(-self.total // self.size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.total, self.size):
            yield first, min(self.size, self.total - first)


Rebuild = Callable[[Sequence[int]], tuple[Estimator, dict[str, Learner]]]


class StageModule(L.LightningModule):
    """Runs its learners in order, each step; an epoch ends with one validation.

    One ``training_step`` runs a chunk of steps, since the trainer's own loop costs as much as a
    third of a step at Coat's size.

    Args:
        estimator: The networks.
        learners: Name -> learner, in the order in which they play.
        plan: Length and batch sizes; ``auto`` is resolved here.
        name: Name of the stage: streams, logs and checkpoints carry it.
        mar: The test sample, which moves to the device with the stage that selects on it.
        replay: Whether to record a step; None where it pays.
        compiled: Whether to compile it; None where it pays.
        rebuild: Builds networks and learners of some of the replicas, by their numbers; None for a
            stack that stays whole.

    Attributes:
        members: Replicas of the run that are in the stack, by number.
        stopped: Members whose epoch is chosen; they compute on until they leave.
        failures: Replica -> what became of it, of those that were NaN or infinite.
    """

    monitor: str  # what is validated, without the stage's name
    selection: Tensor | None = None  # [R] what chooses an epoch, lower is better; None for the last

    def __init__(
        self,
        estimator: Estimator,
        learners: dict[str, Learner],
        plan: StagePlan,
        name: str,
        *,
        mar: nn.Module | None = None,
        replay: bool | None = None,
        compiled: bool | None = None,
        rebuild: Rebuild | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.estimator = estimator
        self.learners = learners
        self.plan = fixed = plan.at(estimator.space)
        self.stage = name
        self.sampler = BatchSampler(
            estimator.space,
            name,
            fixed.observed_batch,
            fixed.pair_batch,
            hold_out=bool(fixed.select),
        )
        self.steps_per_epoch = fixed.steps
        self.first_epoch = 0  # where a resumed run continues
        self.epoch_logs: dict[str, Tensor] = {}  # means over the epoch so far, [R] each
        self.mar = mar
        self.replay, self.compiled = replay, compiled
        self.whole, self._rebuild = [estimator], rebuild  # a list: no second module of the stage
        self.replicas = estimator.space.replicas
        self.members = list(range(self.replicas))
        self.stopped: set[int] = set()
        self.failures: dict[int, str] = {}
        self._recording: Recording | None = None

    @property
    def epoch(self) -> int:
        """Current epoch of the stage, counted from 0 whether or not the run was resumed."""
        return self.first_epoch + self.current_epoch

    def cpu(self) -> Self:
        """Stay: Lightning ends each stage so, but the next one and the measurement run there."""
        return self

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The learners' optimisers, each of which steps its own player."""
        return [x.optimizer for x in self.learners.values() if x.optimizer is not None]

    def train_dataloader(self) -> "Chunks":
        """Chunks of one epoch; batches follow from the step numbers."""
        width = self.replicas * (self.sampler.observed_batch + self.sampler.pair_batch)
        size = max(1, min(CHUNK_STEPS, CHUNK_PAIRS // width, self.steps_per_epoch))
        return Chunks(self.steps_per_epoch, size)

    def val_dataloader(self) -> "Chunks":
        """One item: a validation is one pass over this rank's share."""
        return Chunks(1, 1)

    def on_fit_start(self) -> None:
        if self.estimator.has_propensity:  # a clip by the log is found before a step is recorded
            self.estimator.weighting.floor(self.estimator)
        if self.first_epoch:
            return
        for learner in self.learners.values():
            learner.on_stage_start()

    def on_train_epoch_start(self) -> None:
        self.epoch_logs = {}
        if self.compiled is None and type(self._recording) is Recording and self._compile_now():
            self._recording = None
        for learner in self.learners.values():
            learner.on_epoch_start(self.epoch, self.sampler)

    def training_step(self, chunk: tuple[int, int], _: int) -> None:
        """Run a chunk of steps."""
        offset, count = chunk
        first = self.epoch * self.steps_per_epoch + offset
        logs: dict[str, list[Tensor]] = {}
        for step in self._steps(self.sampler.chunk(first, count)):
            for name, value in step.items():
                logs.setdefault(f"{self.stage}/train/{name}", []).append(value)
        stacked = {key: torch.stack(values) for key, values in logs.items()}  # [steps, R]
        fine = [torch.isfinite(values).all() for values in stacked.values()]
        last = offset + count == self.steps_per_epoch  # its losses are of before its last step
        if last:
            fine.append(~diverged(self.estimator).any())
        if fine and not bool(torch.stack(fine).all()):  # asked once, as it waits for the device
            for key, values in stacked.items():
                self._check_finite(key, values, first)
            if last:
                self._lose(diverged(self.estimator), f"after step {first + count - 1}")
        for key, values in stacked.items():
            share = values.sum(0) / self.steps_per_epoch
            self.epoch_logs[key] = self.epoch_logs.get(key, 0.0) + share

    def _steps(self, batches: list[Batch]) -> list[dict[str, Tensor]]:
        """Take a step on each batch; returns what each logs, ``[R]`` by name."""
        if self._recording is not None and self._recording.fits(batches[0]):
            return self._recording.replay(batches)
        kind, self._recording = self._recorder(), None
        if kind is None:
            return [self._step(batch) for batch in batches]
        logs = []
        if not kind.ready(self.learners):
            logs, batches = [self._step(batches[0])], batches[1:]
        if batches:
            self._recording = self._record(kind, batches[0])
            logs += [self._recording.first] * self._recording.taken
            logs += self._recording.replay(batches[self._recording.taken :])
        return logs

    def _record(self, kind: type[Recording], batch: Batch) -> Recording:
        captured = self.compiled is not False
        try:
            return kind(self.learners, batch, captured=captured)
        except CompilerError as error:
            if self.compiled:
                raise
            warnings.warn(f"Steps run uncompiled: {error}", stacklevel=2)
            self.compiled = False
            return Recording(self.learners, batch)

    def _step(self, batch: Batch) -> dict[str, Tensor]:
        logs = {}
        for name, learner in self.learners.items():
            for key, value in learner.update(batch).items():
                logs[f"{name}_{key}"] = value
        return logs

    def _recorder(self) -> type[Recording] | None:
        """How steps are repeated, where that is possible and pays or is asked for."""
        # where every step sees all of D, results of frozen networks are kept from step to step
        if self.sampler.whole or not replayable(self.learners.values()):
            if self.compiled:
                warnings.warn(f"compile=true: steps of {self.stage!r} {UNRECORDED}", stacklevel=2)
                self.compiled = None
            return None
        if self._compile_now() if self.compiled is None else self.compiled:
            return CompiledStep
        if self.replay is not None:
            return Recording if self.replay else None
        to_come = (self.plan.epochs - self.epoch) * self.steps_per_epoch
        pays = recording_pays(to_come, self.device, captured=self.compiled is not False)
        return Recording if pays else None

    def _compile_now(self) -> bool:
        """Whether compiling pays from this epoch on: a resumed run comes to the same answer."""
        steps, taken = self.plan.epochs * self.steps_per_epoch, self.epoch * self.steps_per_epoch
        batch = self.sampler.observed_batch + self.sampler.pair_batch
        # and a smaller stack to that of the whole
        parameters = self.replicas * self.estimator.parameters_per_replica
        return compiling_pays(steps, self.replicas * batch, parameters, self.device, taken)

    def _show(self, name: str, value: Tensor) -> None:  # [R]
        """Put the mean of a validation's value on the bar; loggers get it with the epoch."""
        self.log(name, value.mean(), prog_bar=True, logger=False, batch_size=1)

    def logged(self) -> dict[str, Tensor]:
        """What loggers get of the epoch, ``[R]`` by name."""
        return self.epoch_logs

    def _check_finite(self, key: str, values: Tensor, first: int) -> None:
        wrong = ~torch.isfinite(values)  # [steps, R]
        lost = wrong.any(0)
        if not bool(lost.any()):
            return
        for position in torch.nonzero(lost).flatten().tolist():
            step = int(wrong[:, position].long().argmax())
            what = f"{key} became {float(values[step, position])}"
            self._note(position, f"at step {first + step}", what)
        self._lose(lost)

    def _lose(self, lost: Tensor, when: str = "") -> None:
        """Go on without some replicas, ``[R]`` bool, which leave before the next epoch.

        Raises:
            DivergenceError: If none is left.
        """
        positions = torch.nonzero(lost).flatten().tolist()
        if not positions:
            return
        if when:
            for position in positions:
                self._note(position, when, "a parameter became NaN or larger than 1e9")
        if len(self.failures) == self.replicas:
            first = self.failures[min(self.failures)]
            rest = "" if self.replicas == 1 else f" (and so did all {self.replicas} replicas)"
            raise DivergenceError(f"{first}{rest}; {REMEDY}")
        optimizers = [x.optimizer for x in self.learners.values() if x.optimizer is not None]
        calm(self.estimator, optimizers, lost)

    def _note(self, position: int, when: str, what: str) -> None:
        """Keep what became of a replica first, unless its epoch was chosen before."""
        member = self.members[position]
        if member not in self.stopped:
            seed = int(self.estimator.space.seeds[position])
            where = f"in stage {self.stage!r} {when} of replica {member} (seed {seed})"
            self.failures.setdefault(member, f"{what} {where}")

    def leaving(self) -> list[int]:
        """Members that need not be computed any longer."""
        return [m for m in self.members if m in self.stopped or m in self.failures]

    def keep(self, members: Sequence[int]) -> None:
        """Go on with some of the members alone; the others are computed no longer.

        Args:
            members: Replicas of the run, by number, in order; at least one.
        """
        if self._rebuild is None or list(members) == self.members:
            return
        positions = [self.members.index(member) for member in members]
        estimator, learners = self._rebuild(members)
        estimator.to(self.estimator.space.keys.device).train(self.estimator.training)
        hand_over((self.estimator, self.learners), (estimator, learners), positions)
        old = self.sampler
        self.estimator, self.learners, self.members = estimator, learners, list(members)
        self.sampler = BatchSampler(
            estimator.space, old.stage, old.observed_batch, old.pair_batch, hold_out=old.hold_out
        )
        self._recording = None
        self.changed()

    def whole_again(self) -> None:
        """At the end of the stage: the whole stack, with the state of the members there are."""
        whole = self.whole[0]
        if self.estimator is not whole:
            put_back(self.estimator, whole, self.members)
            self.estimator, self.members = whole, list(range(self.replicas))

    def changed(self) -> None:
        """Forget what was kept of another stack."""

    def smaller_pays(self, leaving: int) -> bool:
        """Whether a stack without so many of its members saves more time than it takes to make."""
        if self._rebuild is None or leaving == len(self.members):
            return False
        if not isinstance(self._recording, CompiledStep):
            return leaving * LEAST_LEAVING >= len(self.members)
        steps = (self.plan.epochs - self.epoch) * self.steps_per_epoch
        batch = self.sampler.observed_batch + self.sampler.pair_batch
        parameters = leaving * self.estimator.parameters_per_replica
        return compiling_pays(steps, leaving * batch, parameters, self.device)

    def of_run_rows(self, value: Tensor) -> Tensor:
        """A copy of a replica-major tensor of the members as one of the run, 0 for others."""
        each = value.reshape(len(self.members), -1)
        rows = len(value) // len(self.members) * self.replicas
        return self.of_run(each, 0.0).reshape(rows, *value.shape[1:]).clone()

    def of_run(self, value: Tensor, missing: float = torch.nan) -> Tensor:  # [r, ...] -> [R, ...]
        """Values of the members among those of the whole run, where others have ``missing``."""
        if len(self.members) == self.replicas:
            return value
        whole = value.new_full((self.replicas, *value.shape[1:]), missing)
        whole[self.members] = value
        return whole
