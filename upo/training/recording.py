"""Recording a step as a list of tensor operations, and running it again on other batches.

Where tables are small, most of a step is Python and autograd, which find the same operations in
every step. A recording holds these operations with the forward and backward passes and the
optimisers' updates of all players, so a replayed step computes what the step itself would compute.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from upo.core import distributed
from upo.core.layers import ReplicaEmbedding
from upo.core.optim import ReplicaAdam
from upo.learners.base import GradientLearner, Learner
from upo.models.estimator import Estimator
from upo.pairs import Batch
from upo.training.graphed import DeviceGraph, can_capture, hold_constants

# Recording takes half a second, and saves one or two milliseconds a step; captured, some seven.
LEAST_STEPS, LEAST_CAPTURED = 1000, 200

# Values that no step changes. What else a learner holds says ``replayable = True`` in its class: it
# does the same operations in every step, so between steps it keeps nothing but parameters, buffers
# and moments, and decides nothing by a value of the batch. What reads labels of D says
# ``reads_labels = True``, too.
PLAIN = (
    *(FunctionType, BuiltinFunctionType, Tensor, nn.Parameter),
    *(bool, int, float, str, type(None)),
)


def replayable(learners: Iterable[Learner]) -> bool:
    """Whether every step of these learners is known to do the same operations, in one process."""
    players = list(learners)
    if distributed.world_size() > 1 or not players:
        return False
    estimator = players[0].estimator
    shared = [estimator._weighting, estimator.form, estimator.bins, *estimator.networks.values()]
    return all(_known(part, estimator) for part in [*shared, *_parts(players)])


def recording_pays(steps: int, device: torch.device, *, captured: bool) -> bool:
    """Whether recording saves more time than it takes.

    Args:
        steps: That are to come, at most.
        device: Where they are taken.
        captured: Whether what is recorded may be captured there.
    """
    return steps >= (LEAST_CAPTURED if captured and can_capture(device) else LEAST_STEPS)


def _parts(players: Iterable[Learner]) -> Iterator[object]:
    """The learners, and what they hold."""
    for learner in players:
        yield learner
        yield from _leaves([*vars(learner).values()])


def _leaves(part: object) -> Iterator[object]:
    if isinstance(part, dict):
        part = [*part.values()]
    if isinstance(part, partial):  # Hydra has a subclass of its own
        part = [part.func, *part.args, part.keywords]
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _leaves(inner)
    else:
        yield part


def _known(part: object, estimator: Estimator) -> bool:
    kind = type(part)  # a class speaks for itself alone: a subclass may do something else
    return part is estimator or kind in PLAIN or vars(kind).get("replayable") is True


def traced(step: Callable[..., list[Tensor]], *inputs: Any) -> GraphModule:
    """The operations of a step, which is taken; what lies in host memory is moved once."""
    graph: GraphModule = make_fx(step, tracing_mode="real")(*inputs)
    hold_constants(graph)
    return graph


class Recording:
    """A step of some learners, to be replayed on batches of the same shape.

    Args:
        learners: Name -> learner, in playing order; ``replayable``, and past their first step.
        batch: What the recorded step sees.
        captured: Whether a GPU takes its operations in one launch; elsewhere this changes nothing.

    Attributes:
        first: What the recorded step logged.
        taken: Steps that recording took: this one.
        device_graph: The launch, from the second replayed step on.
    """

    taken = 1

    def __init__(
        self, learners: dict[str, Learner], batch: Batch, *, captured: bool = False
    ) -> None:
        self.learners = learners
        self.labelled = any(getattr(x, "reads_labels", False) for x in _parts(learners.values()))
        self.first: dict[str, Tensor] = {}
        self.graph = self._record(batch)
        self.shapes = [x.shape for x in [*self._state(), *self._tensors(batch)]]
        self.rates = self._rates()
        self.captured = captured and can_capture(batch.tensors()[0].device)
        self.device_graph: DeviceGraph | None = None

    @staticmethod
    def ready(learners: dict[str, Learner]) -> bool:
        """Whether every optimiser holds moments, which a first step makes."""
        return all(x.optimizer.state for x in learners.values() if x.optimizer is not None)

    def _record(self, batch: Batch) -> Callable[..., list[Tensor]]:
        """The step as a function of all tensors that it reads."""

        def step(state: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
            return self._step(batch.of(tensors, labelled=self.labelled))

        for learner in self.learners.values():
            if isinstance(learner, GradientLearner):
                for table in learner.tables:  # there before the step, so that it is kept
                    table.gradient(by_rows=learner.by_rows).start()
        return traced(step, self._state(), self._tensors(batch))

    def _step(self, batch: Batch) -> list[Tensor]:
        for name, learner in self.learners.items():
            for key, value in learner.update(batch).items():
                self.first[f"{name}_{key}"] = value
        return list(self.first.values())

    def fits(self, batch: Batch) -> bool:
        """Whether shapes and learning rates are those that were recorded."""
        state = self._state()
        if self.device_graph is not None and not self.device_graph.holds(state):
            self.device_graph = None
        shapes = [x.shape for x in [*state, *self._tensors(batch)]]
        return shapes == self.shapes and self._rates() == self.rates

    def _rates(self) -> list[float]:
        return [group["lr"] for o in self._optimizers() for group in o.param_groups]

    @torch.no_grad()
    def replay(self, batches: Sequence[Batch]) -> list[dict[str, Tensor]]:
        """Take a step on each batch; returns what each logs."""
        logs = [dict(zip(self.first, values, strict=True)) for values in self._run(batches)]
        for learner in self.learners.values():
            learner.estimator.stepped(learner.network)
        return logs

    def _run(self, batches: Sequence[Batch]) -> Iterator[list[Tensor]]:
        state = self._state()
        for batch in batches:
            yield self._once(state, self._tensors(batch))

    def _once(self, state: list[Tensor], changing: list[Tensor]) -> list[Tensor]:
        """Take a step; the first on a GPU loads its code, which a launch of many does not."""
        if self.device_graph is not None:
            return self.device_graph(changing)
        found = self._call(state, changing)
        if self.captured:
            self._capture(state, changing)
        return found

    def _call(self, state: list[Tensor], changing: list[Tensor]) -> list[Tensor]:
        return self.graph(state, changing)

    def _capture(self, state: list[Tensor], changing: list[Tensor]) -> None:
        try:
            self.device_graph = DeviceGraph(self._call, state, changing)
        except RuntimeError as error:
            warnings.warn(f"Steps are replayed one launch after another: {error}", stacklevel=2)
            self.captured = False

    def _optimizers(self) -> list[ReplicaAdam]:
        return [x.optimizer for x in self.learners.values() if x.optimizer is not None]

    def _tables(self) -> list[ReplicaEmbedding]:
        networks = next(iter(self.learners.values())).estimator.networks
        return [m for m in networks.modules() if isinstance(m, ReplicaEmbedding)]

    def _tensors(self, batch: Batch) -> list[Tensor]:
        """What the learners read of a batch."""
        return batch.tensors(labelled=self.labelled)

    def _state(self) -> list[Tensor]:
        """Every tensor that outlives a step."""
        estimator = next(iter(self.learners.values())).estimator
        state = [*estimator.parameters(), *estimator.bins.buffers(), *estimator.networks.buffers()]
        for optimizer in self._optimizers():
            for moments in optimizer.state.values():
                state += moments.values()
        return state + [g.total for t in self._tables() for g in t.kept_gradients.values()]
