"""The learned mix of bias and variance that an imputation is fitted for (DR-MSE)."""

import torch
from torch import Tensor, nn

from upo.core.layers import ReplicaLinear, Sizes
from upo.errors import InputError
from upo.functional.imputation import omega_mse
from upo.models.estimator import Estimator
from upo.pairs import Pairs


class Mix(nn.Module):
    r"""Share :math:`\lambda(x)` in (0, 1) of the bias in a pair's weight, of frozen embeddings.

    Source: Dai et al., KDD 2022, where a network of embeddings gives it. Differs: an affine map; a
    start at the density, where both weights have one size at a propensity of the density.

    Args:
        sizes: Seeds; the embeddings are another network's.
        dim: Embedding size of the representation; a pair has ``2 * dim`` features.
        start: Share that every pair starts with, in (0, 1); the density if None.
        representation: Role of the network whose features are seen.
        purpose: Name of the network.

    Raises:
        InputError: If ``start`` is out of range.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        dim: int,
        start: float | None = None,
        representation: str = "prediction",
        purpose: str = "mix",
    ) -> None:
        super().__init__()
        if start is not None and not 0 < start < 1:
            raise InputError(f"start of the mix must lie in (0, 1), got {start}; null: density.")
        self.layer = ReplicaLinear(2 * dim, 1, seeds=sizes.seeds, purpose=purpose, gain=0.0)
        self.start, self.representation = start, representation

    def share(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B]
        """The share of the bias, with the graph to this network."""
        start = estimator.space.density if self.start is None else self.start
        seen = estimator.features(self.representation, pairs)
        level = torch.logit(seen.new_tensor(start, dtype=torch.float64)).to(seen.dtype)
        return torch.sigmoid(self(seen) + level)

    def weight(self, estimator: Estimator, rows: Pairs) -> Tensor:  # [R, B]
        """Weights of rows of O in the imputation loss, with the graph to this network."""
        return omega_mse(estimator.p_hat(rows), self.share(estimator, rows))

    def forward(self, features: Tensor) -> Tensor:  # [R, B, 2 * dim] -> [R, B]
        """Logits of the share, less that of the start."""
        found: Tensor = self.layer(features).squeeze(-1)
        return found
