"""Terms of a prediction whose embeddings are part of the propensity's (DT-IPS, DT-DR)."""

from collections.abc import Callable

from torch import Tensor

from upo.core.distributed import batch_mean
from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import batch_of
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.functional.disentangled import orthogonality_penalty
from upo.learners.strength import Strength
from upo.models.estimator import Estimator
from upo.pairs import Batch, ObservedPairs, Pairs


class ObservationTerm:
    r""":math:`\alpha\,\mathrm{mean}_D\,\ell(\hat p,o)`; the prediction is part of the propensity.

    Args:
        loss: Pointwise loss of (logit, observed).
        alpha: Strength, at least 0.
        network: Role of the propensity.
    """

    replayable = True

    def __init__(
        self,
        *,
        loss: Callable[[Tensor, Tensor], Tensor],
        alpha: Hyper = 0.5,
        network: str = "propensity",
    ) -> None:
        self.loss, self.alpha, self.network = loss, Strength(alpha, "alpha"), network
        self.reads = (network,)

    def __call__(self, estimator: Estimator, batch: Batch) -> Tensor:
        """The term ``[R]``, with the graph to the networks that the propensity reads."""
        pairs = batch.pairs
        return self.alpha(batch_mean(self.loss(estimator.logit(self.network, pairs), pairs.o)))


class Orthogonal:
    r""":math:`\beta` times how far two networks' embeddings are from orthogonal, users' and items'.

    A term of the prediction's loss, on rows of O and pairs of D, and a penalty of the propensity's,
    on pairs of D.

    Args:
        beta: Strength, at least 0.
        networks: Roles of the two; both have tables ``user`` and ``item``.
    """

    replayable = True

    def __init__(
        self, *, beta: Hyper = 1.0, networks: tuple[str, str] = ("prediction", "auxiliary")
    ) -> None:
        self.beta, (self.first, self.second) = Strength(beta, "beta"), networks
        self.reads = networks

    def __call__(
        self, estimator: Estimator, of: Batch | Pairs, p_hat: Tensor | None = None
    ) -> Tensor:
        """The term ``[R]``, with the graph to both networks."""
        parts = of.parts if isinstance(of, Batch) else [of]
        return self.beta(sum(self._of(estimator, part) for part in parts))  # type: ignore[arg-type]

    def _of(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        with batch_of(pairs.total, rated=isinstance(pairs, ObservedPairs)):
            sides = [
                [_table(estimator, role, side)(index) for role in (self.first, self.second)]
                for side, index in (("user", pairs.users), ("item", pairs.items))
            ]
        users, items = (orthogonality_penalty(a, b) for a, b in sides)
        return users + items


def _table(estimator: Estimator, role: str, side: str) -> ReplicaEmbedding:
    table = getattr(estimator.network(role), side, None)
    if not isinstance(table, ReplicaEmbedding):
        raise InputError(
            f"Disentangling reads a table of {side} embeddings of estimator.networks.{role}, which "
            "has none; take a factorisation."
        )
    return table
