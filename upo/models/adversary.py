"""The adversary of the minimax game: a bounded weight w(x) of each pair's features."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from upo.core.distributed import batch_mean
from upo.core.layers import ReplicaLinear, Sizes
from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.pairs import Pairs


def unit_power(x: Tensor) -> Tensor:  # [R, B] -> [R, B]
    """Scaled so that the mean square over the global batch is 1."""
    return x / batch_mean(x**2).clamp(min=1e-12).sqrt().unsqueeze(-1)


_BOUNDS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "rms": unit_power,
    "none": lambda x: x,
}


class Adversary(nn.Module):
    r"""Weight :math:`w(x)` on the propensity net's features, by an MLP or a logistic head.

    The game's objective is homogeneous in w, so without a bound its maximum is infinite; ``tanh``
    keeps w in (-1, 1), ``sigmoid`` in (0, 1), which can push residuals to one side only. ``rms``
    fixes the mean square of w instead, so that a few pairs may weigh as much as 1 / p_hat does.
    ``none`` is what the authors' development code does with its MLP.

    Source: UPO (AAAI 2026), eq. (4); bound and capacity are choices of this project.

    Args:
        sizes: Seeds; the tables are the propensity network's.
        dim: Embedding size of the propensity network; there are ``2 * dim`` features.
        hidden: Width of the hidden layer; 0 for the logistic variant.
        bound: ``tanh``, ``sigmoid``, ``rms`` or ``none``.
        purpose: Name of the network.

    Raises:
        InputError: If ``bound`` is unknown or ``hidden`` is negative.
    """

    replayable = True

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        hidden: int,
        bound: str = "tanh",
        purpose: str = "adversary",
    ) -> None:
        super().__init__()
        if bound not in _BOUNDS:
            raise InputError(f"adversary bound must be one of {list(_BOUNDS)}, got {bound!r}.")
        if hidden < 0:
            raise InputError(f"adversary hidden must be at least 0 (logistic), got {hidden}.")
        self.bound = _BOUNDS[bound]
        widths = [2 * dim, hidden, 1] if hidden else [2 * dim, 1]
        self.layers = nn.ModuleList(
            ReplicaLinear(a, b, seeds=sizes.seeds, purpose=f"{purpose}{n}", gain=2**0.5)
            for n, (a, b) in enumerate(pairwise(widths))
        )

    def see(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B, 2 * dim]
        """What the weights are a function of: the propensity network's frozen features."""
        return estimator.features("propensity", pairs)

    def forward(self, features: Tensor) -> Tensor:  # [R, B, 2 * dim] -> [R, B]
        """Weights of the pairs."""
        x = features
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        weight: Tensor = self.bound(self.layers[-1](x).squeeze(-1))
        return weight
