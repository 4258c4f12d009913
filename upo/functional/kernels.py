r"""Kernel balancing: weights w of observed rows that give kernel functions the mean they have on D.

Source: Li et al., "Debiased collaborative filtering with kernel-based causal balancing", ICLR 2024.
Symbols: w weight, of mean about 1 over O, so it contains the factor |O| / |D| that IPS carries;
K(x_j, x) kernel of an anchor x_j and a pair x. The batch is the last axis, anchors the one before.
"""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean, batch_sum

KERNELS = ("gaussian", "exponential")


def unit_range(x: Tensor, low: Tensor, high: Tensor) -> Tensor:  # [R, B, d], [R, d] x 2
    """Min-max scaling (x - low) / (high - low) of each feature; constant features become 0.

    In [0, 1] for x between ``low`` and ``high``.

    Source: Li et al., ICLR 2024, whose public code writes ``x - low / (high - low)``, and scales
    each set by its own range.
    """
    span = high - low
    safe = torch.where(span > 0, span, torch.ones_like(span))
    return (x - low.unsqueeze(1)) / safe.unsqueeze(1)


def pair_kernel(
    x: Tensor, anchors: Tensor, *, kind: str = "gaussian", gamma: float = 1.0
) -> Tensor:  # [R, B, d], [R, J, d] -> [R, J, B]
    r"""Kernel of every anchor with every pair, in (0, 1] (0 where the exponential underflows).

    Source: Li et al., ICLR 2024, whose public code takes a gamma of 0.1.

    Args:
        x: Features of the pairs.
        anchors: Features of the anchors.
        kind: ``gaussian`` :math:`e^{-\gamma d^2}` or ``exponential`` :math:`e^{-\gamma d}`, where d
            is the Euclidean distance.
        gamma: Inverse width, above 0.

    Raises:
        ValueError: If ``kind`` is unknown.
    """
    if kind not in KERNELS:
        raise ValueError(f"kernel must be one of {list(KERNELS)}, got {kind!r}.")
    squares = (anchors**2).sum(-1).unsqueeze(-1) + (x**2).sum(-1).unsqueeze(-2)
    d2 = (squares - 2.0 * anchors @ x.mT).clamp(min=0.0)
    return torch.exp(-gamma * (d2 if kind == "gaussian" else d2.sqrt()))


def weight_entropy(w: Tensor) -> Tensor:  # [R, B] -> [R]
    r"""Negative entropy :math:`\mathrm{mean}_O\,w\log w`: the weights stay as even as they can.

    For w of at least 0; it is least, -1 / e, where every weight is 1 / e, and 0 where all are 1.

    Source: Li et al., ICLR 2024, the objective of the balancing weights.
    """
    return batch_mean(torch.special.xlogy(w, w))


def balance_gap(w: Tensor, k_o: Tensor, k_d: Tensor) -> Tensor:  # -> [R, J]
    r"""Imbalance of kernel functions, :math:`\mathrm{mean}_D K(x_j,x)-\mathrm{mean}_O wK(x_j,x)`.

    Of any sign, 0 where they are balanced.

    Args:
        w: ``[R, B]`` weights of observed rows.
        k_o: ``[R, J, B]`` kernels of those rows.
        k_d: ``[R, J, n]`` kernels of pairs of D.

    Source: Li et al., ICLR 2024, the balancing constraints.
    """
    return batch_mean(k_d) - batch_mean(w.unsqueeze(-2) * k_o)


def balance_noise(w: Tensor, k_o: Tensor, k_d: Tensor) -> Tensor:  # -> [R, J]
    r"""Standard error of each gap of a batch.

    .. math:: \sqrt{\mathrm{var}_O(wK)/b+\mathrm{var}_D(K)/n}

    What gaps are by chance alone, under weights that balance; at least 0. Arguments are those of
    :func:`balance_gap`.

    Source: this project. A constant in its place is below the noise of a small batch, or above any
    gap that there is where kernels are nearly constant.
    """
    return sum(_error_of_mean(x) for x in (w.unsqueeze(-2) * k_o, k_d)).sqrt()  # type: ignore[union-attr]


def _error_of_mean(x: Tensor) -> Tensor:  # [..., B] -> [...]
    """Squared standard error of a mean over the global batch."""
    spread = batch_mean((x - batch_mean(x).unsqueeze(-1)) ** 2)
    return spread / batch_sum(torch.ones_like(x)).clamp(min=1.0)


def balance_hinge(gap: Tensor, slack: float | Tensor, *, summed: bool = False) -> Tensor:
    r"""Violation :math:`\sum_j\max(0,|g_j|-C)` of the balancing constraints, ``[R, J] -> [R]``.

    Args:
        gap: Imbalance of each kernel function.
        slack: C, at least 0; a number, ``[R]``, or ``[R, J]``, one for each.
        summed: Add the signed gaps before the hinge, :math:`\max(0,|\sum_j g_j|-C)`, as public code
            does; gaps of opposite sign then cancel.

    Returns:
        ``[R]``, at least 0.

    Source: Li et al., ICLR 2024, the constraints with slack C as a hinge. Differs: the hinge takes
    each gap alone.
    """
    if summed:
        return (gap.sum(-1).abs() - slack).clamp(min=0.0)
    one = isinstance(slack, Tensor) and slack.dim() < gap.dim()
    allowed = slack.unsqueeze(-1) if one else slack  # type: ignore[union-attr]
    return (gap.abs() - allowed).clamp(min=0.0).sum(-1)


def whitening(k: Tensor, ridge: float) -> Tensor:  # [R, J, J] -> [R, J, J]
    r"""Matrix W with :math:`W^\top W=(K+\rho I)^{-1}`, of the anchors' kernels with each other.

    With gaps d of the anchors' kernels, :math:`\|Wd\|` is the largest gap of any function of norm 1
    that they span: :math:`a^*\propto(K+\rho I)^{-1}d` is the worst one, in closed form. With all
    pairs as anchors it is the maximum mean discrepancy.

    Source: Gretton et al., "A kernel two-sample test", JMLR 2012, for the worst case of Li et al.,
    ICLR 2024 (WKBIPS, WKBDR), which public code approaches by gradient ascent.

    Where ``k`` is not positive semi-definite, W is NaN, so that the host need not ask.

    Args:
        k: Kernels of the anchors with each other.
        ridge: Above 0; anchors that nearly coincide have no functions that tell them apart.
    """
    eye = torch.eye(k.shape[-1], dtype=k.dtype, device=k.device)
    factor, failed = torch.linalg.cholesky_ex(k + ridge * eye)
    factor = factor.masked_fill(failed[..., None, None] != 0, torch.nan)
    inverse: Tensor = torch.linalg.solve_triangular(factor, eye.expand_as(k), upper=False)
    return inverse


def expansion_loss(
    target: Tensor, coefficients: Tensor, k_o: Tensor, w: Tensor
) -> Tensor:  # [R, B], [R, S], [R, S, B], [R, B] -> [R]
    r"""Weighted squares :math:`\mathrm{mean}_O\,w(t-\sum_s a_sK(x_s,x))^2` of a kernel expansion.

    The target is the error to be balanced: e for IPS, e - e_hat for DR; frozen by the caller.
    At least 0 for w of at least 0.

    Source: Li et al., ICLR 2024, the adaptive choice of kernels (AKBIPS, AKBDR). Differs: the
    coefficients belong to fixed anchors; in public code they belong to slots of a batch.
    """
    fit = (coefficients.unsqueeze(-2) @ k_o).squeeze(-2)
    return batch_mean(w * (target - fit) ** 2)
