"""The networks of one estimator by role, and the parts that connect them.

Learners ask it for logits, propensities and errors of a batch. A result is kept on the batch until
the network it came from takes a step, so players that meet on one batch share their forward passes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from upo.errors import InputError
from upo.functional.propensity import sigmoid
from upo.models.bins import Bins
from upo.models.derived import Derived
from upo.models.imputation import ErrorForm, PseudoLabel
from upo.models.weighting import Weighting
from upo.pairs import Pairs, PairSpace


class Estimator(nn.Module):
    """Networks by role: ``prediction``, and where the method has them the others.

    Args:
        space: The pair space.
        networks: Role -> network; all map ``(users, items)`` of shape ``[R, B]`` to logits, except
            ``adversary``, which maps features to weights, and those that are ``Derived`` from
            other roles.
        weighting: Gives the propensity that divides; None for methods without one.
        form: Meaning of the imputed error.
        bins: Bins of the propensity game.
    """

    def __init__(
        self,
        space: PairSpace,
        networks: dict[str, nn.Module],
        *,
        weighting: Weighting | None = None,
        form: ErrorForm | None = None,
        bins: Bins | None = None,
    ) -> None:
        super().__init__()
        self.space = space
        self.networks = nn.ModuleDict(networks)
        self._weighting = weighting
        self.form: ErrorForm = form or PseudoLabel()
        self.bins = bins or Bins()
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
    def parameters_per_replica(self) -> int:
        """Learnable parameters of one replica."""
        return sum(p.numel() for p in self.networks.parameters()) // self.space.replicas

    def stepped(self, role: str) -> None:
        """Note that a network changed: what batches remember of it is stale."""
        self._steps[role] += 1

    def _stamp(self, role: str) -> int:
        """Grows whenever a network, or one that it is derived from, takes a step."""
        network = self.networks[role]
        sources = network.sources if isinstance(network, Derived) else ()
        return self._steps[role] + sum(self._stamp(source) for source in sources)

    def _remember(
        self, pairs: Pairs, role: str, what: str, compute: Callable[[], Tensor]
    ) -> Tensor:
        version, graph = self._stamp(role), torch.is_grad_enabled()
        known = pairs.memo.get((role, what))
        if known is not None and known[0] == version and (known[1] or not graph):
            return known[2]
        value = compute()
        pairs.memo[(role, what)] = (version, graph, value)
        return value

    def logit(self, role: str, pairs: Pairs) -> Tensor:  # [R, B]
        """Logits of a network on a batch, with the graph to its parameters."""
        network = self.networks[role]
        inputs = (self, pairs) if isinstance(network, Derived) else (pairs.users, pairs.items)
        return self._remember(pairs, role, "logit", lambda: network(*inputs))

    def features(self, role: str, pairs: Pairs) -> Tensor:  # [R, B, width]
        """Frozen representation of the pairs in a network."""
        network = self.networks[role]

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
        return self.probability("propensity", pairs)

    def probability(self, role: str, pairs: Pairs) -> Tensor:  # [R, B]
        """Sigmoid of a network's logits, with the graph to its parameters."""
        return self._remember(pairs, role, "probability", lambda: sigmoid(self.logit(role, pairs)))

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
        """Imputed errors with the graph to the prediction; the imputation network is frozen."""
        g = self.logit("imputation", pairs).detach()
        return self.form.imputed(self.logit("prediction", pairs), g)
