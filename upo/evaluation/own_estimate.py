r"""Bias and variance of SNIPS, written as those of DR with one constant for all imputed errors.

With :math:`c=\sum_D p e/\hat p\,/\sum_D p/\hat p`, to which SNIPS tends, the DR bias at
:math:`\hat e=c` is :math:`|c-\mathrm{mean}_D e|`, which is that of SNIPS; and the variance of the
ratio is, by the delta method, the DR variance at :math:`\hat e=c` over
:math:`(\mathrm{mean}_D p/\hat p)^2`. In a log o stands for p.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.evaluation.populations import Knowledge, Population
from upo.models.estimator import Estimator


class SelfNormalized(NamedTuple):
    """What SNIPS tends to, and the mean of its weights' expectation over D; ``[R, 1]`` each."""

    level: Tensor
    mass: Tensor


@torch.no_grad()
def self_normalized(
    estimator: Estimator, population: Population, known: Knowledge
) -> SelfNormalized | None:
    """Both, over a population; None for an estimator of another estimate."""
    if estimator.estimate != "self_normalized" or not known.complete:
        return None
    where = estimator.space.keys.device
    sums = torch.zeros(3, estimator.space.replicas, dtype=torch.float64, device=where)
    for pairs, weight, labels in known.labelled(population):
        share = weight * known.expected(pairs) / estimator.p_hat(pairs).double()
        e = estimator.error_and_imputed(pairs, labels)[0]
        cells = weight.double().expand_as(share)
        sums += torch.stack([(share * e).sum(-1), share.sum(-1), cells.sum(-1)])
    errors, weights, cells = sum_across_ranks(sums)
    return SelfNormalized((errors / weights)[:, None], (weights / cells)[:, None])
