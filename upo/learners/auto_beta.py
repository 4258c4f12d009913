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
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from upo.core.distributed import batch_mean
from upo.core.optim import Hyper
from upo.errors import InputError
from upo.learners.base import Logs
from upo.learners.propensity import PropensityLearner, UPOPenalty
from upo.models.beta_window import beta_window
from upo.models.estimator import Estimator
from upo.pairs import Batch, BatchSampler, Pairs


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
        beta = self.beta.of(estimator.space.replicas)
        window.beta = torch.as_tensor(beta).to(window.beta).expand_as(window.beta).clone()

    def __call__(self, estimator: Estimator, pairs: Pairs, p_hat: Tensor) -> Tensor:
        """The penalty ``[R]``."""
        window = beta_window(estimator, self.network)
        loss = self.value(estimator, pairs, p_hat)
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
