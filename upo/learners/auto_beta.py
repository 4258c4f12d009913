r"""beta of the game set by Theorem 2: :math:`\beta^*=-\mathrm{Cov}(CE,L_{UPO})/V(L_{UPO})`.

The two losses of the last W batches are kept; at the start of each epoch beta becomes the estimate
from them, clipped to [0, maximum], for each replica on its own. Between neighbouring batches the
networks hardly move while the pairs are drawn anew, so the moments are taken from successive
differences (von Neumann, 1941): the fall of both losses during training, which would look like a
positive covariance, cancels.

The window is a network role without parameters: checkpoints and saved models carry it, and a
resumed run continues with it. The values are those of the global batch, so N processes agree.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from upo.core.distributed import batch_mean
from upo.core.layers import Sizes
from upo.core.optim import Hyper, per_replica
from upo.errors import InputError
from upo.estimator import Estimator
from upo.functional.propensity import binned_upo_loss
from upo.functional.theory import beta_star
from upo.learners.base import Logs
from upo.learners.propensity import PropensityLearner, UPOPenalty, adversary_weight
from upo.pairs import Batch, BatchSampler, Pairs

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


class AutoBetaPenalty(UPOPenalty):
    r""":math:`\beta L_{UPO}` with the beta of a ``BetaWindow``, whose window it feeds.

    Args:
        beta: In force until there is an estimate, at least 0; a number or one for each replica.
        network: Role of the window.

    Raises:
        InputError: If ``beta`` is negative.
    """

    def __init__(self, *, beta: Hyper = 0.0, network: str = "beta") -> None:
        super().__init__(beta=beta)
        self.network = network

    def start(self, estimator: Estimator) -> None:
        """Put the given beta in force."""
        window = beta_window(estimator, self.network)
        beta = per_replica(self.beta, estimator.space.replicas, "beta")
        window.beta = torch.as_tensor(beta).to(window.beta).expand_as(window.beta).clone()

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        window = beta_window(estimator, self.network)
        loss = upo_value(estimator, pairs, p_hat)
        with torch.no_grad():
            ce = batch_mean(binary_cross_entropy(p_hat, pairs.o, reduction="none"))
            window.record(ce, loss)
        return loss * window.beta


class AutoBetaLearner(PropensityLearner):
    """Fits the propensity, and sets beta anew at the start of each epoch.

    Args:
        estimator: The networks, a ``BetaWindow`` among them.
        window: Its role.
        **settings: See ``PropensityLearner``.

    Raises:
        InputError: If there is no such window.
    """

    def __init__(self, estimator: Estimator, *, window: str = "beta", **settings: Any) -> None:
        super().__init__(estimator, **settings)
        self.window = beta_window(estimator, window)

    def on_stage_start(self) -> None:
        """Start with the beta given; a resumed run keeps the one it had."""
        for penalty in self.penalties.values():
            if isinstance(penalty, AutoBetaPenalty):
                penalty.start(self.estimator)

    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Recompute adaptive bins and beta.

        Raises:
            InputError: If every batch is all of D, so that nothing varies but the networks.
        """
        super().on_epoch_start(epoch, sampler)
        if sampler.pair_batch >= self.estimator.space.n_pairs:
            raise InputError(
                "propensity=upo_auto estimates beta from how the losses vary between batches, but "
                f"a batch holds all {sampler.pair_batch} pairs; set the stage's pair_batch to half "
                "of that or less, or take propensity=upo with a beta of your own."
            )
        self.window.refresh()

    def update(self, batch: Batch) -> Logs:
        """Descend, and log the beta in force."""
        beta = self.window.beta.clone()
        return super().update(batch) | {"beta": beta}


def upo_value(estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:  # [R]
    """L_UPO with the adversary's weights frozen."""
    with torch.no_grad():
        weight = adversary_weight(estimator, pairs)
    index = estimator.bin_index(pairs, p_hat)
    return binned_upo_loss(p_hat, pairs.o, weight, index, estimator.bins.num_bins)


def beta_window(estimator: Estimator, role: str) -> BetaWindow:
    """The window of that role.

    Raises:
        InputError: If there is none.
    """
    window = dict(estimator.networks.items()).get(role)
    if not isinstance(window, BetaWindow):
        raise InputError(
            f"estimator.networks.{role} must be an upo.learners.auto_beta.BetaWindow; take "
            "propensity=upo_auto, which defines one."
        )
    return window
