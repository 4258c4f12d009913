"""An adversary whose weights may depend on e - e_hat: bias and variance are in its reach."""

from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_mean
from upo.core.layers import Sizes
from upo.models.adversary import Adversary
from upo.models.estimator import Estimator
from upo.models.metric_weights import bias_weight, variance_weight
from upo.pairs import Pairs

MOST = 10.0  # a feature is cut off at this many root mean squares


class ErrorAwareAdversary(Adversary):
    r"""Adversary that also sees the two weights under which UPO's loss bounds bias and variance.

    By Lemma 2 the loss with :math:`w=(e-\hat e)/\hat p` bounds the DR bias, and with
    :math:`2(1-\hat p)(e-\hat e)^2/\hat p^2` the first-order variance. The features of the
    propensity network do not contain :math:`e-\hat e`; here both weights are inputs, in units of
    their root mean square over the batch, with the expected gap in the place of the gap. It changes
    while the prediction learns, so this adversary belongs to a joint schedule.

    Source: a variant of UPO (AAAI 2026) of this project.

    Args:
        sizes: Seeds; the tables are the propensity network's.
        dim: Embedding size of the propensity network.
        **settings: See ``Adversary``.
    """

    replayable = True

    def __init__(self, sizes: Sizes, *, dim: int, **settings: Any) -> None:
        super().__init__(sizes, dim=dim + 1, **settings)  # 2 (dim + 1) inputs: two more

    @torch.no_grad()
    def see(self, estimator: Estimator, pairs: Pairs) -> Tensor:  # [R, B, 2 * dim + 2]
        """Features of the pairs, with the two weights."""
        p_hat = estimator.propensity(pairs)
        extra = []
        for weight in (bias_weight, variance_weight):
            value = weight(estimator, pairs, p_hat)
            unit = batch_mean(value**2).sqrt().clamp(min=1e-12)[:, None]
            extra.append((value / unit).clamp(-MOST, MOST))
        features = super().see(estimator, pairs)
        return torch.cat([features, torch.stack(extra, dim=-1)], dim=-1)
