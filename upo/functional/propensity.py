"""Losses of the propensity game, and the one place where propensities are clipped."""

import math
from typing import Any

import torch
from torch import Tensor

from upo.core.distributed import batch_sum, gather_rows, sum_across_ranks
from upo.functional.binning import bin_sums, bins_from_edges, equal_mass_edges, equal_width_bins
from upo.functional.diagnostics import effective_sample_size

P_MAX = 1.0 - 1e-6
P_LEAST = 1e-6  # below any clip that is asked for; 1 / p_hat stays a number


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logit: Tensor) -> Tensor:
        p_hat = torch.exp(-logit).add_(1.0).reciprocal_()
        ctx.save_for_backward(p_hat)
        return p_hat

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (p_hat,) = ctx.saved_tensors
        return grads[0] * p_hat * (1.0 - p_hat)


def sigmoid(logit: Tensor) -> Tensor:  # any shape -> the same
    """Probabilities in [0, 1] that depend on the logit alone.

    On the CPU ``torch.sigmoid`` rounds the last elements of a tensor in another way than the rest.
    Where a batch holds a pair twice, or ranks hold other slices of it, equal propensities would
    then differ in the last bit, and could fall in different bins.

    Source: definition.
    """
    p_hat: Tensor = _Sigmoid.apply(logit)  # type: ignore[no-untyped-call]
    return p_hat


def clip_propensity(p_hat: Tensor, p_min: float | Tensor) -> Tensor:
    """Clip to ``[p_min, 1 - 1e-6]``, so that 1 / p_hat and 1 / (1 - p_hat) are both finite.

    Args:
        p_hat: ``[R, B]`` propensities in [0, 1].
        p_min: Lower clip in [0, 1]; a number or ``[R, 1]``; less than 1e-6 is read as that.

    Returns:
        ``[R, B]``; no gradient where the clip binds.

    Source: Ionides, "Truncated importance sampling", JCGS 17(2), 2008.
    """
    # the upper clip first: p_min may be 1
    return p_hat.clamp(max=P_MAX).clamp(min=lower_clip(p_min))


def lower_clip(p_min: float | Tensor) -> float | Tensor:
    """The lower clip in use: ``p_min`` of any shape inside [1e-6, 1].

    Source: as :func:`clip_propensity`.
    """
    if isinstance(p_min, Tensor):
        return p_min.clamp(P_LEAST, 1.0)
    return min(max(p_min, P_LEAST), 1.0)


def sample_size_clip(p_hat: Tensor, share: float) -> float:  # [N]
    r"""The least lower clip c that leaves the weights an effective sample size of a share.

    .. math:: \min\Bigl\{c:\frac{(\sum w)^2}{n\sum w^2}\ge\text{share}\Bigr\},\qquad
        w=\frac1{\max(\hat p,c)}

    The effective sample size grows with c, to 1 where no propensity is above it.

    Source: as :func:`clip_propensity`, and Kish, Survey Sampling, 1965.

    Args:
        p_hat: Propensities of observed pairs, above 0.
        share: In (0, 1).

    Returns:
        c to a relative 1e-6; 0 where no clip is needed.
    """
    p = p_hat.double()

    def enough(clip: float) -> bool:
        return float(effective_sample_size(1.0 / p.clamp(min=clip))) >= share * len(p)

    if enough(0.0):
        return 0.0
    low, high = float(p.min().log()), float(p.max().log())
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(math.exp(middle)) else (middle, high)
    return math.exp(high)


def bin_index(p_hat: Tensor, num_bins: int, binning: str) -> Tensor:  # [R, B] -> [R, B]
    """Bin of each propensity; ``equal_mass`` takes the quantiles of the global batch.

    Args:
        p_hat: ``[R, B]`` propensities in [0, 1]; no gradient flows through the membership.
        num_bins: M, at least 1.
        binning: ``equal_width`` (the UPO paper's stated rule) or ``equal_mass``.

    Returns:
        ``[R, B]`` int64 in 0..M-1.

    Source: Zheng et al., AAAI 2026, for ``equal_width``; the authors' development code for
    ``equal_mass``.

    Raises:
        ValueError: If ``binning`` is unknown or ``num_bins < 1``.
    """
    fixed = p_hat.detach()
    if binning == "equal_width":
        return equal_width_bins(fixed, num_bins)
    if binning == "equal_mass":
        rows = gather_rows(fixed)
        if rows.shape[-1] == 0:  # no pair anywhere: nothing to cut
            return torch.zeros_like(fixed, dtype=torch.int64)
        return bins_from_edges(fixed, equal_mass_edges(rows, num_bins))
    raise ValueError(f"binning must be 'equal_width' or 'equal_mass', got {binning!r}.")


def bin_residuals(
    p_hat: Tensor, observed: Tensor, weight: Tensor | float, index: Tensor, num_bins: int
) -> Tensor:  # [R, B] -> [R, M]
    r"""Sums :math:`S_m=\sum_{B_m} w(o-\hat p)` over the global batch, of any sign.

    Source: Zheng et al., AAAI 2026, the inner sums of eq. (4).

    Raises:
        ValueError: If the summands and ``index`` differ in shape.
    """
    return sum_across_ranks(bin_sums(weight * (observed - p_hat), index, num_bins))


def binned_upo_loss(
    p_hat: Tensor, observed: Tensor, weight: Tensor | float, index: Tensor, num_bins: int
) -> Tensor:  # [R, B] -> [R]
    r""":math:`\frac1n\sum_m|S_m|` for a given bin membership; at least 0, and 0 of no pairs.

    Source: Zheng et al., AAAI 2026, eq. (4). Differs: n is the number of pairs of the batch, where
    the development code divides by |O|.

    Raises:
        ValueError: If the summands and ``index`` differ in shape.
    """
    residuals = bin_residuals(p_hat, observed, weight, index, num_bins)
    return residuals.abs().sum(-1) / batch_sum(torch.ones_like(p_hat)).clamp(min=1.0)


def upo_loss(
    p_hat: Tensor,
    observed: Tensor,
    weight: Tensor | float,
    *,
    num_bins: int = 10,
    binning: str = "equal_mass",
) -> Tensor:  # [R, B] -> [R]; [B] -> scalar
    r"""Unified propensity loss :math:`\frac1{|D|}\sum_m\bigl|\sum_{B_m} w(x)(o-\hat p)\bigr|`.

    With ``w = 1`` this is the expected calibration error over the same bins; other weights bound
    the balance, bias and variance errors from above (Lemma 2). At least 0; not bounded above, since
    it grows in proportion to w.

    Source: Zheng et al., AAAI 2026, eq. (4).

    Args:
        p_hat: Propensities in [0, 1].
        observed: 0/1 or bool indicators of observation.
        weight: w(x) of each pair, or a number.
        num_bins: M, at least 1.
        binning: ``equal_width`` (paper) or ``equal_mass`` (the development code).

    Raises:
        ValueError: If shapes differ, ``num_bins < 1`` or ``binning`` is unknown.

    >>> upo_loss(torch.tensor([0.2, 0.4]), torch.tensor([0.0, 1.0]), 1.0, num_bins=1)
    tensor(0.2000)
    """
    shapes = {tuple(t.shape) for t in (p_hat, observed, weight) if isinstance(t, Tensor)}
    if len(shapes) > 1:
        raise ValueError(f"upo_loss needs p_hat, observed, weight of one shape, got {shapes}.")
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
    index = bin_index(p_hat, num_bins, binning)
    return binned_upo_loss(p_hat, observed.to(p_hat.dtype), weight, index, num_bins)
