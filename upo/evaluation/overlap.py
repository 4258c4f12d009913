"""What is left of the weights of the log: the share at the clip, and the effective sample size."""

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks
from upo.evaluation.mar import rank_blocks
from upo.models.estimator import Estimator


@torch.no_grad()
def weight_columns(estimator: Estimator) -> dict[str, Tensor]:  # name -> [R] float64
    r"""Of all rows of the log, held-out ones included, by result column.

    ``clip_share`` is the share of rows whose learned propensity lies below the clip, so that they
    carry one and the same weight. ``effective_sample_size`` is that of the weights w = 1 / p_hat as
    a share of the rows, :math:`(\sum w)^2 / (n \sum w^2)`, in (0, 1]; 1 where all are alike.
    Source: Kish, Survey Sampling, 1965, section 11.7 (as 1 + the squared relative spread of w).
    """
    space = estimator.space
    where = space.keys.device
    sums = torch.zeros(3, space.replicas, dtype=torch.float64, device=where)
    for lo, hi in rank_blocks(space.n_observed, space.replicas):
        pairs = space.pairs_at(space.keys[lo:hi].expand(space.replicas, -1), hi - lo)
        p_hat, learned = estimator.p_hat(pairs), estimator.divisor(pairs)
        w = 1.0 / p_hat.double()
        sums += torch.stack([(learned < p_hat).double().sum(-1), w.sum(-1), w.square().sum(-1)])
    below, first, second = sum_across_ranks(sums)
    n = space.n_observed
    return {"clip_share": below / n, "effective_sample_size": first**2 / (n * second)}
