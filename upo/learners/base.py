"""A learner: one player's network, loss and optimiser, with one ``update(batch)``."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from upo.core.distributed import sum_gradients
from upo.core.layers import ReplicaEmbedding, collecting
from upo.core.optim import ReplicaAdam
from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler

Logs = dict[str, Tensor]  # name -> [R], detached
Optimizer = Callable[..., ReplicaAdam]


class Learner(ABC):
    """A player of a stage.

    Attributes:
        estimator: The networks and the parts that connect them.
        network: Role of the network that this learner sets or trains.
        optimizer: Its optimiser, or None for a player that learns in closed form.
    """

    optimizer: ReplicaAdam | None = None

    def __init__(self, estimator: Estimator, *, network: str) -> None:
        if network not in estimator.networks:
            raise InputError(
                f"A learner needs network {network!r}, which estimator.networks does not define; "
                f"defined are {list(estimator.networks)}."
            )
        self.estimator = estimator
        self.network = network

    @abstractmethod
    def update(self, batch: Batch) -> Logs:
        """Take one step on a batch and return what to log."""

    def on_stage_start(self) -> None:  # noqa: B027 - optional hook
        """Prepare for a stage; called once, before its first step."""

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:  # noqa: B027
        """Prepare for an epoch."""


class GradientLearner(Learner):
    """Trains one network by gradient steps; every other network is frozen in its update.

    Args:
        estimator: The networks and the parts that connect them.
        optimizer: Partial optimiser, called with the network's parameters.
        network: Role of the network that this learner trains.

    Raises:
        InputError: If the estimator has no network of that role.
    """

    optimizer: ReplicaAdam

    def __init__(self, estimator: Estimator, *, optimizer: Optimizer, network: str) -> None:
        super().__init__(estimator, network=network)
        trained = estimator.networks[network]
        self.params = list(trained.parameters())
        self.tables = [m for m in trained.modules() if isinstance(m, ReplicaEmbedding)]
        self.optimizer = optimizer(self.params, replicas=estimator.space.replicas)

    def step(self, loss: Tensor) -> None:  # [R]
        """Descend the sum of the replicas' losses in this learner's parameters alone."""
        with collecting(self.tables) as collected:
            found = torch.autograd.grad(loss, self.params, torch.ones_like(loss), allow_unused=True)
            grads = [
                _sum(g, collected.get(id(p)), p) for p, g in zip(self.params, found, strict=True)
            ]
        sum_gradients(grads)
        for p, g in zip(self.params, grads, strict=True):
            p.grad = g
        self.optimizer.update(grads)
        self.estimator.stepped(self.network)


def _sum(dense: Tensor | None, collected: Tensor | None, like: Tensor) -> Tensor:
    """Gradient of a parameter: what autograd found and what lookups collected."""
    if collected is None:
        return torch.zeros_like(like) if dense is None else dense
    return collected if dense is None else collected.add_(dense)
