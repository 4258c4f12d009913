"""Stage 1: the propensity-adversary minimax game (Algorithm 1 of UPO, lines 7-13)."""

from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import share
from upo.core.sampling import EpochStream, Permutation, stream_key
from upo.functional.propensity import bin_residuals
from upo.learners.propensity import adversary_weight
from upo.pairs import Pairs
from upo.training.stage import StageModule

PROBE_PAIRS = 65536


class PropensityModule(StageModule):
    """Trains the propensity; validation measures it on a fixed sample of D.

    Logged at each validation: the cross-entropy and, with an adversary, the residual of each bin as
    the adversary weighs it. Epochs are not selected: observation indicators of D are all in use.
    """

    residuals: Tensor | None = None  # [R, M] mean weighted residual of each bin, last validation

    def validation_step(self, *_: Any) -> None:
        """Measure on the probe."""
        with torch.no_grad():
            pairs = self._probe()
            p_hat = self.estimator.propensity(pairs)
            sizes = torch.full((1,), float(pairs.total), device=p_hat.device)
            if "adversary" in self.estimator.networks:
                weight = adversary_weight(self.estimator, pairs)
                bins = self.estimator.bins
                index = bins.index(p_hat)
                sums = bin_residuals(p_hat, pairs.o, weight, index, bins.num_bins)
                self.residuals = sums / sizes
                worst = self.residuals.abs().amax(-1)
                self.log(f"{self.stage}/val/worst_bin", worst.mean(), prog_bar=True, batch_size=1)

    def _probe(self) -> Pairs:
        space = self.estimator.space
        size = min(PROBE_PAIRS, space.n_pairs)
        stream = EpochStream(
            Permutation(space.n_pairs, space.n_items), stream_key(space.seeds, "probe")
        )
        lo, hi = share(size)
        return space.pairs(stream.rows(0, 1, lo, hi, size)[:, 0], size)
