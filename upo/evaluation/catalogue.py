"""Recall over the whole catalogue, estimated without bias from randomly exposed ratings."""

import torch
from torch import Tensor

from upo.core.distributed import gather_rows
from upo.core.shards import own_blocks
from upo.evaluation.mar import MarSet
from upo.functional.catalogue import chance_in_first, mean_recall
from upo.models.estimator import Estimator
from upo.pairs import Pairs

MOST_CELLS = 2**22  # scores of a replica that are ranked: of so many users as make up that many


@torch.no_grad()
def catalogue_recall(
    estimator: Estimator, mar: MarSet, include: Tensor | None = None
) -> Tensor:  # [R] float64
    """Recall@K over all items, of users drawn from the test set where there are many.

    Of a user's positives in a uniform sample of items, each is a uniform draw from all of the
    user's positives, so the share of them that the model ranks among the first K of *all* items is
    an unbiased estimate of the user's recall@K; the mean is over users with a positive in the
    sample. Recall among the sampled items alone, what ``recall@K`` is, is not that of the
    catalogue: it has K places for a few items. Items of the training log stay in the catalogue.

    Source: Wang et al., "Debias can be unreliable: mitigating bias issue in evaluating debiasing
    recommendation" (URE), arXiv:2409.04810; implemented from its description, not from code.

    Args:
        estimator: The networks.
        mar: The randomly exposed ratings.
        include: ``[R, N]`` bool rows that each replica reads; all by default.

    Returns:
        NaN where no row is a positive.
    """
    space = estimator.space
    users, index = torch.unique(mar.users, return_inverse=True)
    drawn = max(1, min(len(users), MOST_CELLS // space.n_items))
    rows = torch.nonzero((index * drawn % len(users) < drawn) & (mar.labels > 0)).flatten()
    parts = []
    step = max(1, 2**22 // (space.n_items * space.replicas))
    catalogue = torch.arange(space.n_items, device=rows.device)
    for first, last in own_blocks(len(rows), step):
        mine = rows[first:last]
        who, unique_row = torch.unique(mar.users[mine], return_inverse=True)
        scores = _scores(estimator, who, catalogue)  # [R, users, n_items]
        at = mar.items[mine].expand(space.replicas, -1)
        own = scores[:, unique_row].gather(-1, at.unsqueeze(-1))
        parts.append(chance_in_first(scores[:, unique_row], own, mar.k))
    empty = torch.zeros(space.replicas, 0, dtype=torch.float64, device=rows.device)
    chance = gather_rows(torch.cat([empty, *parts], dim=-1))
    used = torch.ones_like(chance, dtype=torch.bool) if include is None else include[:, rows]
    return mean_recall(chance, index[rows], len(users), used)


def _scores(estimator: Estimator, users: Tensor, items: Tensor) -> Tensor:  # [R, U, I]
    replicas = estimator.space.replicas
    everyone = users.repeat_interleave(len(items)).expand(replicas, -1)
    everything = items.repeat(len(users)).expand(replicas, -1)
    pairs = Pairs(everyone, everything, estimator.space, everyone.shape[-1])
    return estimator.logit("prediction", pairs).view(replicas, len(users), len(items))
