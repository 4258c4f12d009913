"""The closed-form player that tilts a propensity to the imputed errors, each epoch."""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.functional.tilting import tilt
from upo.learners.base import Learner, Logs
from upo.models.estimator import Estimator
from upo.models.tilted import TiltedPropensity
from upo.pairs import Batch, BatchSampler, sampled_pairs, training_rows

SAMPLE = 2**17  # pairs of D, all of a smaller one, for its mean


class Tilting(Learner):
    """Solves the balance equations of a ``TiltedPropensity`` on all training rows, each epoch.

    Args:
        estimator: The networks.
        network: Role of the tilted propensity.

    Raises:
        InputError: If the network is another, or nothing imputes errors.
    """

    replayable = True

    reads = ("imputation",)

    def __init__(self, estimator: Estimator, *, network: str = "tilted") -> None:
        super().__init__(estimator, network=network)
        self.tilted = estimator.network_of(network, TiltedPropensity)
        estimator.check_reads(self)

    @torch.no_grad()
    def on_epoch_start(self, epoch: int, sampler: BatchSampler) -> None:
        """Solve; every network is frozen."""
        estimator, tilted, space = self.estimator, self.tilted, self.estimator.space
        pairs = sampled_pairs(space, "tilt", SAMPLE)
        e_hat = estimator.imputed(pairs)
        center = batch_mean(e_hat)[:, None]
        spread = batch_mean((e_hat - center) ** 2).sqrt()[:, None]
        tilted.center.copy_(center)
        tilted.scale.copy_(torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        total = space.n_pairs * batch_mean(tilted.balanced(estimator, pairs).transpose(1, 2))
        found = [
            (estimator.logit(tilted.sources[0], rows), tilted.balanced(estimator, rows))
            for rows in training_rows(space)
        ]
        logit, b = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        before = tilted.coefficients
        tilted.coefficients.copy_(tilt(logit, b, total, before).to(before.dtype))
        estimator.stepped(self.network)

    def update(self, batch: Batch) -> Logs:
        """Nothing to learn within an epoch."""
        level: Tensor = self.tilted.coefficients
        return {"level": level[:, 0].clone(), "slope": level[:, 1].clone()}
