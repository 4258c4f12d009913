"""Kernel balancing weights, written as the propensity that divides, and their anchors."""

from typing import Any

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.core.optim import Hyper
from upo.core.sampling import splitmix64, stream_key, uniform
from upo.errors import InputError
from upo.functional.kernels import KERNELS, pair_kernel
from upo.functional.propensity import P_MAX, clip_propensity
from upo.models.estimator import Estimator
from upo.models.neighbours import ReferencePairs
from upo.models.weighting import Auto, ClippedPropensity
from upo.pairs import Pairs

LINKS = ("exp", "sigmoid")
BASES = ("propensity", "one")
_STEEPEST = 20.0  # |logit| beyond which a weight is at its clip whatever the base


class KernelWeight(ClippedPropensity):
    r"""Weights :math:`w=\mathrm{base}\cdot\mathrm{link}(g)` as the propensity (|O| / |D|) / w.

    So IPS and DR objectives serve unchanged: density / p_hat is w. The clip bounds w in
    [|O| / |D|, |O| / (|D| p_min)], as it bounds those of IPS.

    Args:
        base: ``propensity``: the IPS weights (|O| / |D|) / p_hat of the frozen propensity network,
            which the weight network corrects; ``one``: no base.
        link: ``exp``, so g = 0 leaves the base; ``sigmoid``, as in public code, where w never
            exceeds its base.
        weight_network: Name of the weight network.
        p_min: Lower clip of the propensity, in (0, 1].
        relative: Read ``p_min`` as a multiple of |O| / |D|.
        network: Name of the propensity network.

    Raises:
        InputError: If an option is unknown.
    """

    def __init__(
        self,
        *,
        base: str = "propensity",
        link: str = "exp",
        weight_network: str = "weight",
        p_min: Hyper | Auto = 0.2,
        relative: bool = True,
        network: str = "propensity",
    ) -> None:
        super().__init__(p_min=p_min, relative=relative, network=network)
        if link not in LINKS or base not in BASES:
            raise InputError(
                f"estimator.weighting needs link in {list(LINKS)} and base in {list(BASES)}, "
                f"got link={link!r}, base={base!r}."
            )
        self.base, self.link, self.weight_network = base, link, weight_network

    def propensity(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """The propensity (|O| / |D|) / w of the weights, below 1, without lower clip."""
        return self._raw(estimator, pairs).clamp(max=P_MAX)

    def p_hat(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Clipped (|O| / |D|) / w ``[R, B]``, with the graph to the weight network alone."""
        return clip_propensity(self._raw(estimator, pairs), self._floor(estimator))

    def roles(self, estimator: Estimator) -> set[str]:
        """The propensity's networks, where it is the base, and the weights'."""
        base = super().roles(estimator) if self.base == "propensity" else set()
        return base | estimator.behind(self.weight_network)

    def clipped_share(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        """Share of the pairs below the clip, ``[R]``."""
        return (self._raw(estimator, pairs) < self._floor(estimator)).float().mean(-1)

    def _raw(self, estimator: Estimator, pairs: Pairs) -> Tensor:
        g = estimator.logit(self.weight_network, pairs).clamp(-_STEEPEST, _STEEPEST)
        inverse = torch.exp(-g) if self.link == "exp" else 1.0 / torch.sigmoid(g)
        if self.base == "one":
            return estimator.space.density * inverse
        return super().p_hat(estimator, pairs).detach() * inverse


class KernelAnchors(ReferencePairs):
    """A fixed set of pairs of D, of which each step balances the kernels of J drawn at random.

    Args:
        sizes: Seeds.
        dim: Embedding size of the representation; a pair has ``2 * dim`` features.
        n_anchors: S, pairs in the set, at least 1. Memory of a step is O(batch x S).
        balanced: J, anchors of a step, in 1..S.
        kind: ``gaussian`` or ``exponential``.
        gamma: Inverse width on features in [0, 1], above 0.
        divide_by_dim: Divide the features by their number, as public code does; kernels are then
            nearly constant unless ``gamma`` grows with the square of ``dim``.
        purpose: Name of the network, part of the stream's key.

    Raises:
        InputError: If an option is out of range.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        n_anchors: int = 512,
        balanced: int = 3,
        kind: str = "gaussian",
        gamma: float = 1.0,
        divide_by_dim: bool = False,
        purpose: str = "anchors",
    ) -> None:
        if not 1 <= balanced <= n_anchors:
            raise InputError(
                f"estimator.networks.anchors.balanced must lie in 1..n_anchors ({n_anchors}), "
                f"got {balanced}; try 3."
            )
        if kind not in KERNELS or gamma <= 0:
            raise InputError(
                f"estimator.networks.anchors needs kind in {list(KERNELS)} and gamma > 0, "
                f"got kind={kind!r}, gamma={gamma}."
            )
        super().__init__(sizes, dim=dim, count=n_anchors, purpose=purpose)
        self.balanced, self.kind = balanced, kind
        # dividing both features by their number divides the distance by it
        shrink = 2 * dim if divide_by_dim else 1
        self.gamma = gamma / shrink ** (2 if kind == "gaussian" else 1)

    def choose(self, seeds: Tensor, step: int) -> Tensor:  # -> [R, J]
        """Anchors that a step balances: J draws from the set, a function of seed and step."""
        position = torch.arange(self.balanced, device=seeds.device) + step * self.balanced
        draw = uniform(splitmix64(stream_key(seeds, self.purpose, "step")[:, None] + position))
        return (draw * self.count).long()

    def forward(self, features: Tensor, index: Tensor | None = None) -> Tensor:  # -> [R, J, B]
        """Kernels of the anchors at ``index`` ``[R, J]``, by default all, with pairs' features."""
        anchors = self.features
        if index is not None:
            anchors = anchors.gather(1, index.unsqueeze(-1).expand(-1, -1, anchors.shape[-1]))
        return pair_kernel(self.scaled(features), anchors, kind=self.kind, gamma=self.gamma)


class AdaptiveAnchors(KernelAnchors):
    """Anchors with coefficients of the error's kernel expansion; the J largest are balanced.

    The coefficients belong to fixed pairs. (Public code ties them to the slots of a batch, that is
    to other pairs at every step.)

    Args:
        sizes: Seeds.
        **options: See ``KernelAnchors``.
    """

    def __init__(self, sizes: Sizes, **options: Any) -> None:
        super().__init__(sizes, **options)
        self.coefficients = nn.Parameter(torch.zeros(len(sizes.seeds), self.count))

    def choose(self, seeds: Tensor, step: int) -> Tensor:  # -> [R, J]
        """The J anchors of largest absolute coefficient."""
        return self.coefficients.detach().abs().topk(self.balanced, dim=-1).indices
