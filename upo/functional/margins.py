"""Additive logits that reproduce the margins of a binary table, without a pass over its cells."""

import torch
from torch import Tensor

GROUPS = 512  # users (items) of like margins are solved for together
ROUNDS = 100
CLOSE = 1e-6  # largest relative error of a margin at which the rounds end
MOST = 0.98  # a margin is read inside (0, this]: one of 1 has no finite logit
FLAT = 1e6  # pseudo-cells where margins differ by no more than chance


def chance_pseudocounts(counts: Tensor, density: float) -> Tensor:  # [R, n] -> [R]
    r"""Pseudo-cells s with which :math:`(n+s)/(\bar n+s)` best predicts a relative margin.

    .. math:: s=\bar n\,\frac{\bar n(1-d)}{\mathrm{Var}(n)-\bar n(1-d)}

    The fraction is the variance of counts by chance over what their variance exceeds it by, which
    is how much the margins truly differ: the best linear prediction of their true ratios shrinks
    counts to their mean by this much (empirical Bayes with a gamma prior, whose shape is s where
    cells are rare). Margins that differ by no more than chance are taken for equal. In [1e-3, 1e6].

    Source: Robbins, "An empirical Bayes approach to statistics", 1956.

    Args:
        counts: Observed cells of each user, or of each item.
        density: Share d of the cells that are observed.
    """
    n = counts.double()
    mean = n.mean(-1)
    chance = mean * (1 - density)
    beyond = (n.var(-1, correction=0) - chance).clamp(min=0.0)
    return (mean * chance / beyond.clamp(min=1e-300)).clamp(1e-3, FLAT)


def smoothed_margins(counts: Tensor, density: float, smoothing: Tensor) -> Tensor:
    r"""Smoothed share of observed cells :math:`d\,(n+s)/(\bar n+s)`, of mean d; ``[R, n]``.

    Args:
        counts: ``[R, n]`` observed cells.
        density: d, in (0, 1].
        smoothing: ``[R]`` pseudo-cells s > 0.

    Source: the predictions that :func:`chance_pseudocounts` shrinks, after Robbins, 1956.
    """
    n = counts.double() + smoothing.double()[:, None]
    return density * n / n.mean(-1, keepdim=True)


def margin_logits(
    users: Tensor, items: Tensor, density: float, smoothing: float | None = None
) -> list[tuple[Tensor, Tensor]]:  # [R, U], [R, I] -> R x ([U], [I])
    """Additive logits whose margins are those of the counts, smoothed; of each replica.

    Args:
        users: Observed cells of each user.
        items: Observed cells of each item.
        density: Share of all cells that are observed, in (0, 1].
        smoothing: Pseudo-cells above 0; None for those of :func:`chance_pseudocounts`.

    Source: :func:`smoothed_margins` and :func:`additive_logits`.
    """
    margins = []
    for counts in (users, items):
        pseudo = (
            chance_pseudocounts(counts, density)
            if smoothing is None
            else torch.full((len(counts),), smoothing)
        )
        margins.append(smoothed_margins(counts, density, pseudo))
    return [additive_logits(rows, columns) for rows, columns in zip(*margins, strict=True)]


def additive_logits(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:  # [U], [I] -> [U], [I]
    r"""Logits of the additive model with given margins.

    Finds a, b with :math:`\frac1I\sum_i\sigma(a_u+b_i)` = ``rows`` and
    :math:`\frac1U\sum_u\sigma(a_u+b_i)` = ``columns`` by Newton steps in turn; they are the maximum
    likelihood of the additive logit. Rows of one margin have one logit, so a table of any size is
    solved on at most 512 x 512 groups.

    Source: Rasch, "Probabilistic models for some intelligence and attainment tests", 1960.

    Args:
        rows: ``[U]`` float64 shares in (0, 1), read inside (0, .98].
        columns: ``[I]`` float64 shares in (0, 1) of the same mean.

    Returns:
        a ``[U]``, whose mean over groups is near 0 for equal margins, and b ``[I]``.
    """
    (x, nx), (y, ny) = _groups(rows), _groups(columns)
    middle = torch.logit((y * ny).sum() / ny.sum())
    a, b = torch.logit(x) - middle, torch.logit(y)
    for _ in range(ROUNDS):
        a = _newton(a, x, b, ny)
        b = _newton(b, y, a, nx)
        p = torch.sigmoid(a[:, None] + b) @ ny / ny.sum()
        if bool(((p - x).abs() <= CLOSE * x).all()):
            break
    return _spread(rows, x, a), _spread(columns, y, b)


def _newton(logit: Tensor, margin: Tensor, other: Tensor, count: Tensor) -> Tensor:
    p = torch.sigmoid(logit[:, None] + other)
    weight = count / count.sum()
    slope = (p * (1 - p)) @ weight
    return logit + ((margin - p @ weight) / slope.clamp(min=1e-12)).clamp(-1.0, 1.0)


def _groups(margins: Tensor) -> tuple[Tensor, Tensor]:
    """Margins in ascending order, of at most ``GROUPS`` groups, and how many each stands for."""
    margins = margins.clamp(max=MOST)
    values, counts = torch.unique(margins, return_counts=True)
    if len(values) > GROUPS:  # those of like logits together, at their mean
        logit = torch.logit(values)
        width = (logit[-1] - logit[0]) / (GROUPS - 1)
        place = torch.unique(((logit - logit[0]) / width).round(), return_inverse=True)[1]
        both = torch.zeros(2, int(place.max()) + 1, dtype=values.dtype, device=values.device)
        both.index_add_(1, place, torch.stack([values * counts, counts.to(values.dtype)]))
        values, counts = both[0] / both[1], both[1]
    return values, counts.to(margins.dtype)


def _spread(margins: Tensor, values: Tensor, logit: Tensor) -> Tensor:
    """Logit of every margin from those of its neighbouring groups, linear in logit(margin)."""
    margins = margins.clamp(max=MOST)
    if len(values) == 1:
        return logit + torch.logit(margins) - torch.logit(values)
    right = torch.searchsorted(values, margins).clamp(1, len(values) - 1)
    x, x0, x1 = (torch.logit(v) for v in (margins, values[right - 1], values[right]))
    share = (x - x0) / (x1 - x0)
    return logit[right - 1] + share * (logit[right] - logit[right - 1])
