"""The window of losses from which beta of the game is estimated, as a network role."""

import torch
from torch import Tensor, nn

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.theory import beta_star
from upo.models.estimator import Estimator

LEAST = 10  # batches before a first estimate; of fewer, its standard error exceeds a third


class BetaWindow(nn.Module):
    """The last W values of both losses, and the beta in force, of each replica.

    Args:
        sizes: Seeds.
        window: W, batches that an estimate rests on, at least 10.
        maximum: Largest beta, at least 0.
        purpose: Name of the role.

    Raises:
        InputError: If one of them is out of range.
    """

    values: Tensor  # [R, W, 2] float64, oldest first; NaN where there is none yet
    beta: Tensor  # [R]

    def __init__(
        self,
        sizes: Sizes,
        *,
        window: int = 50,
        maximum: float = 100.0,
        purpose: str = "beta",
    ) -> None:
        super().__init__()
        key = f"estimator.networks.{purpose}"
        if window < LEAST:
            raise InputError(f"{key}.window must be at least {LEAST}, got {window}; try 50.")
        if not maximum >= 0:
            raise InputError(f"{key}.maximum must be at least 0, got {maximum}; try 100.")
        replicas = len(sizes.seeds)
        self.maximum = maximum
        self.register_buffer(
            "values", torch.full((replicas, window, 2), torch.nan, dtype=torch.float64)
        )
        self.register_buffer("beta", torch.zeros(replicas))

    def record(self, ce: Tensor, upo: Tensor) -> None:  # [R] x 2
        """Note the losses of a batch; the oldest of the window leave."""
        new = torch.stack([ce, upo], dim=-1).double().unsqueeze(1)
        self.values = torch.cat([self.values[:, 1:], new], dim=1)

    def estimate(self) -> Tensor:  # [R] float64
        """beta* of the window, before it is clipped; NaN as long as it holds too few batches."""
        known = self.values[:, ~self.values[0, :, 0].isnan()]  # replicas fill together
        if known.shape[1] < LEAST:
            return torch.full_like(self.values[:, 0, 0], torch.nan)
        steps = known.diff(dim=1)
        return beta_star(steps[..., 0], steps[..., 1])[0]

    def refresh(self) -> None:
        """Set beta to the estimate, where there is one."""
        estimate = self.estimate()
        clipped = estimate.clamp(0.0, self.maximum).to(self.beta.dtype)
        self.beta = torch.where(estimate.isnan(), self.beta, clipped)


def beta_window(estimator: Estimator, role: str) -> BetaWindow:
    """The window of that role.

    Raises:
        InputError: If there is none.
    """
    window = dict(estimator.networks.items()).get(role)
    if not isinstance(window, BetaWindow):
        raise InputError(
            f"estimator.networks.{role} must be an upo.models.beta_window.BetaWindow; take "
            "propensity=upo_auto, which defines one."
        )
    return window
