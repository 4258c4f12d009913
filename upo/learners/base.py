"""A learner: one player's network, loss and optimiser, with one ``update(batch)``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from upo.core.distributed import sum_gradients, world_size
from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import TableGradient, collecting, exchange, gathered
from upo.core.optim import ReplicaAdam
from upo.core.row_adam import RowAdam
from upo.core.sharded_lookups import ShardGradient, deliver
from upo.errors import InputError
from upo.learners.penalty import Strengths, TablePenalty
from upo.models.estimator import Estimator
from upo.models.factorization_machine import FeatureColumns
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
        penalty: Strengths ``rows`` and ``biases`` of the penalty on the rows of its tables that a
            batch looks up; see ``TablePenalty``. None for none.

    Raises:
        InputError: If the estimator has no network of that role, or a strength is wrong.
    """

    optimizer: ReplicaAdam

    def __init__(
        self,
        estimator: Estimator,
        *,
        optimizer: Optimizer,
        network: str,
        penalty: Strengths | None = None,
    ) -> None:
        super().__init__(estimator, network=network)
        trained = estimator.networks[network]
        self.params = list(trained.parameters())
        self.tables = [m for m in trained.modules() if isinstance(m, ReplicaEmbedding)]
        self.columns = [m for m in trained.modules() if isinstance(m, FeatureColumns)]
        self.optimizer = optimizer(self.params, replicas=estimator.space.replicas)
        self.by_rows = isinstance(self.optimizer, RowAdam)
        self.penalty = TablePenalty(penalty or {}, estimator.space.replicas)

    def step(self, loss: Tensor, importance: Tensor | None = None) -> None:  # [R]
        """Descend the sum of the replicas' losses in this learner's parameters alone.

        Args:
            loss: Of each replica.
            importance: How much the loss weighs each row of O of the batch, ``[R, B]``, for the
                penalty; None if all alike.
        """
        sums = {id(t.weight): t.gradient(by_rows=self.by_rows) for t in self.tables}
        with collecting(sums):
            found = torch.autograd.grad(loss, self.params, torch.ones_like(loss), allow_unused=True)
            self.optimizer.update(self._gradients(found, sums, importance))
        self.estimator.stepped(self.network)

    @torch.no_grad()
    def _gradients(
        self,
        found: Sequence[Tensor | None],
        sums: dict[int, TableGradient],
        importance: Tensor | None,
    ) -> list[Tensor | TableGradient]:
        """Gradients over all ranks: what autograd found, what lookups gave, and the penalty's."""
        grads: list[Tensor | TableGradient] = []
        shards = [x for x in sums.values() if isinstance(x, ShardGradient)]
        delivered = {id(x.total) for x in shards}
        of_columns = {k: x for c in self.columns for k, x in self.penalty.of_columns(c).items()}
        for p, g in zip(self.params, found, strict=True):
            rows = sums.get(id(p))
            if rows is None:
                if g is not None and id(p) in of_columns:  # of all ranks, which are summed
                    g = g + of_columns[id(p)] / world_size()
                grads.append(torch.zeros_like(p) if g is None else g)
            else:
                if g is not None:
                    rows.add_dense(g)
                grads.append(rows if self.by_rows else rows.total)
        exchange([x for x in sums.values() if x.by_rows and not isinstance(x, ShardGradient)])
        whole = self._of_all_ranks(importance, sums.values())
        for table in self.tables:
            rows = sums[id(table.weight)]
            self.penalty.add(table, rows, whole if rows.exchanged else importance)
        if shards:
            deliver(shards)
        sum_gradients(
            part
            for x in grads
            for part in (x.to_sum() if isinstance(x, TableGradient) else [x])
            if id(part) not in delivered
        )
        for p, x in zip(self.params, grads, strict=True):
            p.grad = None if isinstance(x, TableGradient) else x
        return grads

    @staticmethod
    def _of_all_ranks(
        importance: Tensor | None, sums: Iterable[TableGradient]
    ) -> Tensor | None:  # [R, b] -> [R, B]
        """As ``exchange`` put lookups together, which it did for the same tables."""
        sizes = [x.size for g in sums if g.exchanged for x in g.lookups if x.rated]
        if importance is None or not sizes or world_size() == 1:
            return importance
        return next(gathered([(importance, sizes[0])])).contiguous()
