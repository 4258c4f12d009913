"""Bins over propensities, and sums within bins.

Everything works on the last axis with any leading shape (the replicas), without a loop over bins
or replicas and without waiting for the device, so the same functions serve training losses and
evaluation. Bin membership carries no gradient.
"""

import torch
from torch import Tensor

from upo.core.running import running_sum


def equal_width_bins(p_hat: Tensor, num_bins: int) -> Tensor:
    """Index of the right-closed bin (m/M, (m+1)/M] that holds each value; 0 falls in bin 0.

    Args:
        p_hat: ``[..., B]`` values in [0, 1]; what lies outside falls in the nearest bin.
        num_bins: M, at least 1.

    Returns:
        ``[..., B]`` int64 in 0..M-1. The product p_hat * M is rounded in the type of ``p_hat``.

    Source: the bins ((m-1)/M, m/M] of Zheng et al., AAAI 2026.

    Raises:
        ValueError: If ``num_bins < 1``.

    Example:
        >>> equal_width_bins(torch.tensor([0.0, 0.5, 0.51, 1.0]), 2)
        tensor([0, 0, 1, 1])
    """
    _check_num_bins(num_bins)
    # clamped as integers: a NaN, which converts to an arbitrary integer, must not index outside
    return (p_hat.detach() * num_bins).ceil().long().sub(1).clamp(0, num_bins - 1)


def equal_mass_edges(
    p_hat: Tensor, num_bins: int, weight: Tensor | None = None, *, ordered: bool = False
) -> Tensor:
    """Inner cut points of M bins of equal mass: the quantiles of ``p_hat`` at 1/M .. (M-1)/M.

    Linear interpolation between order statistics, as ``torch.quantile``, but for any number of
    rows. Ties may leave bins empty, which is fine for every use here.

    Args:
        p_hat: ``[..., N]`` values, N at least 1.
        num_bins: M, at least 1.
        weight: ``[..., N]`` or ``[N]``, how many times each row counts (for whole numbers exactly
            as if the row were repeated); 1 by default.
        ordered: ``p_hat`` is ascending already; without weights.

    Returns:
        ``[..., M-1]`` ascending, in the type of ``p_hat``, without gradient.

    Source: Hyndman, Fan, "Sample quantiles in statistical packages", 1996, the seventh definition.

    Raises:
        ValueError: If there is no row, or ``num_bins < 1``.

    Example:
        >>> equal_mass_edges(torch.tensor([4.0, 1.0, 2.0, 3.0, 5.0]), 2)
        tensor([3.])
    """
    _check_num_bins(num_bins)
    n = p_hat.shape[-1]
    if n == 0:
        raise ValueError("equal_mass_edges needs at least one row, got none.")
    if ordered:
        ranked = p_hat.detach()
    else:
        ranked, order = p_hat.detach().sort(dim=-1)
    # in float64, since float32 cannot count beyond 16 million rows, and divided last, so that a
    # cut that falls on a row is that row's value, not one rounded to either side of it
    cut = torch.arange(1, num_bins, device=p_hat.device, dtype=torch.float64)
    if weight is None:
        at = (cut * (n - 1) / num_bins).expand(*p_hat.shape[:-1], num_bins - 1)
        below = at.floor()
        low = below.long()
        high = (low + 1).clamp(max=n - 1)
    else:
        mass = running_sum(weight.detach().double().expand_as(p_hat).gather(-1, order))
        at = cut * (mass[..., -1:] - 1).clamp(min=0) / num_bins
        below = at.floor()
        # the k-th copy (from 0) belongs to the first row whose cumulative weight exceeds k
        low = torch.searchsorted(mass, below.contiguous(), right=True).clamp(max=n - 1)
        high = torch.searchsorted(mass, below + 1, right=True).clamp(max=n - 1)
    fraction = (at - below).to(p_hat.dtype)
    return torch.lerp(ranked.gather(-1, low), ranked.gather(-1, high), fraction)


def equal_mass_bins(p_hat: Tensor, num_bins: int) -> Tensor:
    """Bin of each value between the equal-mass edges of the values themselves.

    The same as ``bins_from_edges(p_hat, equal_mass_edges(p_hat, num_bins))``, from one sort: a
    search for M - 1 edges among the sorted values takes less than one for each value.

    Source: as :func:`equal_mass_edges`.

    Args:
        p_hat: ``[..., N]`` values, N at least 1.
        num_bins: M, at least 1.

    Returns:
        ``[..., N]`` int64 in 0..M-1.

    Raises:
        ValueError: If there is no row, or ``num_bins < 1``.

    Example:
        >>> equal_mass_bins(torch.tensor([4.0, 1.0, 2.0, 3.0, 5.0]), 2)
        tensor([1, 0, 0, 0, 1])
    """
    ordered, order = p_hat.detach().sort(dim=-1)
    edges = equal_mass_edges(ordered, num_bins, ordered=True)
    above = torch.searchsorted(ordered, edges, right=True)  # first position above each edge
    passed = order.new_zeros(*order.shape[:-1], order.shape[-1] + 1)
    passed.scatter_add_(-1, above, torch.ones_like(above))
    return torch.empty_like(order).scatter_(-1, order, passed[..., :-1].cumsum(-1))


def bins_from_edges(p_hat: Tensor, edges: Tensor) -> Tensor:
    """Index of the right-closed bin (edge, next edge] that holds each value.

    Source: as :func:`equal_width_bins`, whose edges are m/M.

    Args:
        p_hat: ``[..., B]``.
        edges: ``[..., M-1]`` ascending inner cut points with the leading shape of ``p_hat``, or
            ``[M-1]`` shared by all.

    Returns:
        ``[..., B]`` int64 in 0..M-1.

    Example:
        >>> bins_from_edges(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2]))
        tensor([0, 0, 1])
    """
    dtype = torch.promote_types(p_hat.dtype, edges.dtype)
    return torch.searchsorted(
        edges.detach().to(dtype).contiguous(), p_hat.detach().to(dtype).contiguous()
    )


def bin_sums(values: Tensor, index: Tensor, num_bins: int) -> Tensor:
    """Sum of the values in each bin, of any sign; differentiable in ``values``.

    Source: definition.

    Args:
        values: ``[..., B]``.
        index: ``[..., B]`` int64 in 0..M-1, of the shape of ``values``.
        num_bins: M.

    Returns:
        ``[..., M]`` in the type of ``values``.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> bin_sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), 3)
        tensor([5., 0., 2.])
    """
    if values.shape != index.shape:
        raise ValueError(
            "bin_sums needs values and index of one shape, "
            f"got {tuple(values.shape)} and {tuple(index.shape)}."
        )
    return values.new_zeros(*values.shape[:-1], num_bins).scatter_add(-1, index, values)


def _check_num_bins(num_bins: int) -> None:
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
