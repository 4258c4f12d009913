"""The networks of one estimator by role, and the parts that connect them.

Learners ask it for logits, propensities and errors of a batch. A result is kept on the batch until
the network it came from takes a step, so players that meet on one batch share their forward passes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import batch_of
from upo.errors import InputError
from upo.functional.propensity import sigmoid
from upo.pairs import ObservedPairs, Pairs, PairSpace

Kind = TypeVar("Kind", bound=nn.Module)

ESTIMATES = (
    "doubly_robust",
    "inverse_propensity",
    "self_normalized",
)  # DR without an imputation is IPS


class Derived(nn.Module, ABC):
    """A role computed from other roles; its parameters are only what it adds to them.

    Args:
        sources: Roles that it reads, itself not among them.

    Raises:
        InputError: If it reads nothing.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        super().__init__()
        if not sources:
            raise InputError(f"{type(self).__name__} needs at least one source role.")
        self.sources = sources

    @abstractmethod
    def forward(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Logits of the pairs, with the graph to its parameters and its sources'."""


class Weighting(Protocol):
    """Gives the propensity by which observed errors are divided."""

    def p_hat(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """Clipped propensities of the pairs."""

    def floor(self, estimator: Estimator) -> float:
        """Lower clip in use; the mean over replicas where it differs."""

    def roles(self, estimator: Estimator) -> set[str]:
        """Networks that the propensity is computed from, those that these are derived from too."""


class ErrorForm(Protocol):
    """The meaning of the imputed error, with the prediction error that goes with it.

    Logits and results are ``[R, B]``; ``g_logit`` is the output of the imputation network.
    """

    def error(self, f_logit: Tensor, label: Tensor) -> Tensor:
        """Error e of a prediction against a label."""

    def imputed(self, f_logit: Tensor, g_logit: Tensor) -> Tensor:
        """Imputed error of a prediction."""

    def regression(self, f_logit: Tensor, label: Tensor, g_logit: Tensor) -> tuple[Tensor, Tensor]:
        """What imputation is fitted to on an observed row, and its fit."""


class Binning(Protocol):
    """Bins of the propensity game."""

    num_bins: int

    def index(self, p_hat: Tensor) -> Tensor:  # [R, B] -> [R, B]
        """Bin of each propensity."""

    def refresh(self, estimator: Estimator, epoch: int) -> None:
        """Recompute adaptive bins at the start of an epoch."""

    def buffers(self) -> Iterator[Tensor]:
        """The state of the bins."""


class Estimator(nn.Module):
    """Networks by role: ``prediction``, and where the method has them the others.

    Args:
        space: The pair space.
        networks: Role -> network; all map ``(users, items)`` of shape ``[R, B]`` to logits, except
            ``adversary``, which maps features to weights, and those that are ``Derived`` from
            other roles; ``imputed`` gives imputed errors in the place of logits.
        form: Meaning of the imputed error.
        bins: Bins of the propensity game.
        weighting: Gives the propensity that divides; None for methods without one.
        estimate: What the objective estimates the ideal loss by: one of ``ESTIMATES``, or None for
            what has no bias and variance of its own to be measured.

    Raises:
        InputError: If the estimate is unknown.
    """

    def __init__(
        self,
        space: PairSpace,
        networks: dict[str, nn.Module],
        *,
        form: ErrorForm,
        bins: Binning,
        weighting: Weighting | None = None,
        estimate: str | None = "doubly_robust",
    ) -> None:
        super().__init__()
        if estimate not in (None, *ESTIMATES):
            raise InputError(
                f"estimator.estimate must be null or one of {', '.join(ESTIMATES)}, got "
                f"{estimate!r}."
            )
        self.estimate = estimate
        self.space = space
        self.networks = nn.ModuleDict(networks)
        self._weighting = weighting
        self.form = form
        self.bins = bins
        self._steps: dict[str, int] = dict.fromkeys(networks, 0)

    @property
    def weighting(self) -> Weighting:
        """The weighting.

        Raises:
            InputError: If the method has none.
        """
        if self._weighting is None:
            raise InputError("This estimator has no propensity; give estimator.weighting.")
        return self._weighting

    @property
    def has_propensity(self) -> bool:
        """Whether the method weights by propensities."""
        return self._weighting is not None

    @property
    def has_imputation(self) -> bool:
        """Whether the method imputes errors."""
        return "imputation" in self.networks

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks' parameters: float64 where they are trained in it."""
        return next(self.networks.parameters()).dtype

    @property
    def parameters_per_replica(self) -> int:
        """Learnable parameters of one replica, over all processes."""
        there = sum(p.numel() for p in self.networks.parameters()) // self.space.replicas
        tables = [m for m in self.networks.modules() if isinstance(m, ReplicaEmbedding)]
        elsewhere = sum((t.n - (t.range[1] - t.range[0])) * t.dim for t in tables)
        return there + elsewhere

    def stepped(self, role: str) -> None:
        """Note that a network changed: what batches remember of it is stale."""
        self._steps[role] += 1

    def network(self, role: str) -> nn.Module:
        """The network of a role.

        Raises:
            InputError: If the method has none: its parts do not fit each other.
        """
        if role not in self.networks:
            raise InputError(
                f"A part of this estimator needs the network {role!r}, but it has only "
                f"{', '.join(self.networks)}; choose a part that brings one, such as imputation=jl "
                "or propensity=ensemble."
            )
        return self.networks[role]

    def network_of(self, role: str, kind: type[Kind]) -> Kind:
        """The network of a role, for a part that needs one of a certain kind.

        Raises:
            InputError: If the method has none, or one of another kind.
        """
        found = self.network(role)
        if not isinstance(found, kind):
            raise InputError(
                f"estimator.networks.{role} must be of the kind {kind.__name__}, got "
                f"{type(found).__name__}; choose a part that brings one."
            )
        return found

    def _stamp(self, role: str) -> int:
        """Grows whenever a network, or one that it is derived from, takes a step."""
        network = self.network(role)
        sources = network.sources if isinstance(network, Derived) else ()
        return self._steps[role] + sum(self._stamp(source) for source in sources)

    def _remember(
        self, pairs: Pairs, role: str, what: str, compute: Callable[[], Tensor]
    ) -> Tensor:
        version, graph = self._stamp(role), torch.is_grad_enabled()
        known = pairs.memo.get((role, what))
        if known is not None and known[0] == version and (known[1] or not graph):
            return known[2]
        with batch_of(pairs.total, rated=isinstance(pairs, ObservedPairs)):
            value = compute()
        pairs.memo[(role, what)] = (version, graph, value)
        return value

    def logit(self, role: str, pairs: Pairs) -> Tensor:  # [R, B]
        """Logits of a network on a batch, with the graph to its parameters."""
        network = self.network(role)
        inputs = (self, pairs) if isinstance(network, Derived) else (pairs.users, pairs.items)
        return self._remember(pairs, role, "logit", lambda: network(*inputs))

    def features(self, role: str, pairs: Pairs) -> Tensor:  # [R, B, width]
        """Frozen representation of the pairs in a network."""
        network = self.network(role)

        @torch.no_grad()
        def compute() -> Tensor:
            return network.features(pairs.users, pairs.items)  # type: ignore[operator, no-any-return]

        return self._remember(pairs, role, "features", compute)

    def propensity(self, pairs: Pairs) -> Tensor:  # [R, B]
        """Unclipped propensity, with the graph to its network.

        A weighting that derives it from more than the propensity network has a ``propensity``.
        """
        derive = getattr(self._weighting, "propensity", None)
        if derive is not None:
            return derive(self, pairs)  # type: ignore[no-any-return]
        return self.probability(self.calibrated("propensity"), pairs)

    def divisor(self, pairs: Pairs) -> Tensor:  # [R, B]
        """What is clipped before it divides: the propensity, unless the weighting has its own."""
        own = getattr(self._weighting, "divisor", None)
        return self.propensity(pairs) if own is None else own(self, pairs)

    def calibrated(self, role: str) -> str:
        """The role that answers for a propensity: its calibration, where there is one."""
        if "calibration" not in self.networks:
            return role
        network = self.networks["calibration"]
        ours = isinstance(network, Derived) and role in network.sources
        return "calibration" if ours else role

    def behind(self, role: str) -> set[str]:
        """A role and all that it is derived from, in the end."""
        network = self.network(role)
        sources = network.sources if isinstance(network, Derived) else ()
        return {role}.union(*map(self.behind, sources))

    def probability(self, role: str, pairs: Pairs) -> Tensor:  # [R, B]
        """Sigmoid of a network's logits, with the graph to its parameters."""
        return self._remember(pairs, role, "probability", lambda: sigmoid(self.logit(role, pairs)))

    def predicted(self, pairs: Pairs) -> Tensor:  # [R, B] float64
        """Predictions: probabilities, or ratings on their scale."""
        return self.space.target.prediction(self.logit("prediction", pairs).double())

    def score(self, pairs: Pairs) -> Tensor:  # [R, B] float64
        """What pairs are ranked by: predictions before they are clipped to a scale."""
        return self.space.target.score(self.logit("prediction", pairs).double())

    def share(self, pairs: Pairs) -> Tensor:  # [R, B]
        """Predictions as parts of their scale, in [0, 1], with the graph to the prediction."""
        return self.space.target.share(self.logit("prediction", pairs))

    def bin_index(self, pairs: Pairs, p_hat: Tensor) -> Tensor:  # [R, B]
        """Bin of each propensity of the pairs; players that hold the same tensor share it."""
        known = pairs.binned
        if known is None or known[0] is not p_hat:
            known = pairs.binned = p_hat, self.bins.index(p_hat)
        return known[1]

    def p_hat(self, pairs: Pairs) -> Tensor:  # [R, B]
        """Clipped propensity that divides; frozen: no gradient into the propensity network."""
        return self.weighting.p_hat(self, pairs).detach()

    def errors(self, pairs: Pairs, role: str = "prediction") -> Tensor:  # [R, B]
        """Errors e of a predictor, with the graph to it; read only where labelled."""
        return self.form.error(self.logit(role, pairs), pairs.labels)

    def imputed(self, pairs: Pairs) -> Tensor:  # [R, B]
        """Imputed errors with the graph to the prediction; the imputation network is frozen.

        Those of the role ``imputed``, where there is one.
        """
        if "imputed" in self.networks:
            return self.logit("imputed", pairs)
        g = self.logit("imputation", pairs).detach()
        return self.form.imputed(self.logit("prediction", pairs), g)

    def check_reads(self, part: object) -> None:
        """See that the networks that a part reads are there, before anything trains.

        Args:
            part: An objective, a penalty or a network. Its ``reads`` names the roles; the role
                ``imputed`` stands in for ``imputation``.

        Raises:
            InputError: If one is missing, or one that such a network reads in its turn.
        """
        for role in getattr(part, "reads", ()):
            if role != "imputation" or "imputed" not in self.networks:
                self.check_reads(self.network(role))

    def error_and_imputed(self, pairs: Pairs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Errors against given labels ``[R, B]``, and the imputed ones: 0 if none are used.

        Both in the unit of predictions, squared where they are of ratings.
        """
        f_logit, square = self.logit("prediction", pairs), self.space.target.unit**2
        e = square * self.form.error(f_logit, labels)
        if not self.has_imputation or self.estimate == "inverse_propensity":
            return e, torch.zeros_like(e)
        return e, square * self.imputed(pairs)
