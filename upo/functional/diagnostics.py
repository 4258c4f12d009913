r"""The four diagnostics of a propensity, on full data, and the effective sample size of weights.

Symbols: p_hat = learned propensity, p = true propensity, o = rating observed, e = prediction error,
e_hat = imputed error, phi = features, w = weight of a row. All sums run over the rows, the last
axis, in float64; ``[R, N]`` gives ``[R]`` and ``[N]`` a scalar. The ``*_terms`` functions return
the summands, of which the metrics in :mod:`upo.metrics` keep running sums.

A row of weight w stands for w pairs of D, so a stratified sample estimates the value over D:
averages are divided by the sum of the weights, which is the number of pairs of D.

Source: Zheng et al., "Unified Propensity Optimization", AAAI 2026 (definitions of ECE, BMSE, Bias
and Var). Differs: rows may be weighted.
"""

import torch
from torch import Tensor

from upo.functional.binning import bin_sums


def ece(
    p_hat: Tensor,  # [..., N] in [0, 1]
    o: Tensor,  # [..., N] 0 or 1
    index: Tensor,  # [..., N] int64, bin of each row
    num_bins: int,
    weight: Tensor | None = None,  # [..., N] or [N]
) -> Tensor:  # [...]
    r"""Expected calibration error.

    .. math:: \sum_m |B_m| / |D| \cdot |mean_{B_m} o - mean_{B_m} \hat p|

    In [0, 1]. The bins come from :func:`upo.functional.binning.equal_width_bins` or
    ``bins_from_edges``.

    Source: Zheng et al., AAAI 2026, definition of ECE. Differs: o is the observation of a pair, not
    its label as in the code behind the paper's Table 1.

    Raises:
        ValueError: If ``p_hat`` and ``index`` differ in shape.

    Example:
        >>> ece(torch.tensor([0.25, 0.5]), torch.tensor([0, 1]), torch.tensor([0, 1]), 2).item()
        0.375
    """
    w = _weight_like(p_hat, weight)
    gap = bin_sums(w * (o.double() - p_hat.double()), index, num_bins)
    return gap.abs().sum(-1) / w.sum(-1)


def bmse(
    p_hat: Tensor,  # [..., N] in (0, 1)
    o: Tensor,  # [..., N] 0 or 1
    features: Tensor,  # [N, d] or [..., N, d]
    weight: Tensor | None = None,  # [..., N] or [N]
) -> Tensor:  # [...]
    r"""Balancing mean squared error: squared norm of the mean imbalance of the features.

    .. math:: \| 1/|D| \sum (o / \hat p - (1 - o) / (1 - \hat p)) \phi \|^2

    At least 0, in squared units of the features; infinite if an unobserved pair has p_hat = 1.

    Source: Zheng et al., AAAI 2026, definition of BMSE, after Li et al., "Propensity matters",
    ICML 2023.
    """
    w = _weight_like(p_hat, weight)
    return (
        (bmse_sums(w * bmse_terms(p_hat, o), features) / w.sum(-1, keepdim=True)).square().sum(-1)
    )


def dr_bias(
    p_hat: Tensor,  # [..., N] in (0, 1]
    o: Tensor,  # [..., N] observed, or its expectation, the true propensity
    e: Tensor,  # [..., N]
    e_hat: Tensor,  # [..., N]
    weight: Tensor | None = None,  # [..., N] or [N]
) -> Tensor:  # [...]
    r"""Absolute bias of the doubly robust estimate of the ideal loss.

    .. math:: 1/|D| |\sum (o - \hat p)(e - \hat e) / \hat p|

    At least 0, in units of the error.

    Source: Zheng et al., AAAI 2026, definition of Bias.
    """
    w = _weight_like(p_hat, weight)
    return (w * dr_bias_terms(p_hat, o, e, e_hat)).sum(-1).abs() / w.sum(-1)


def dr_variance(
    p_hat: Tensor,  # [..., N] in (0, 1]
    p: Tensor,  # [..., N] true propensity in [0, 1]
    e: Tensor,  # [..., N]
    e_hat: Tensor,  # [..., N]
    weight: Tensor | None = None,  # [..., N] or [N]
) -> Tensor:  # [...]
    r"""Variance of the doubly robust estimate over the observation indicators.

    .. math:: 1/|D|^2 \sum p (1 - p) / \hat p^2 (e - \hat e)^2

    At least 0, in squared units of the error; 0 where every e_hat is e.

    Source: Zheng et al., AAAI 2026, definition of Var.
    """
    w = _weight_like(p_hat, weight)
    return (w * dr_variance_terms(p_hat, p, e, e_hat)).sum(-1) / w.sum(-1).square()


def effective_sample_size(weights: Tensor) -> Tensor:  # [..., N] -> [...]
    r"""Number of equally weighted rows that are as informative: :math:`(\sum w)^2 / \sum w^2`.

    Between 1 and N for weights of at least 0; NaN if all of them are 0.

    Source: Kish, Survey Sampling, 1965.

    Example:
        >>> effective_sample_size(torch.tensor([1.0, 1.0, 0.0])).item()
        2.0
    """
    w = weights.double()
    return w.sum(-1).square() / w.square().sum(-1)


def bmse_terms(p_hat: Tensor, o: Tensor) -> Tensor:  # [..., N] x 2 -> [..., N]
    r"""Balancing weights :math:`o / \hat p - (1 - o) / (1 - \hat p)` for o in {0, 1}.

    At least 1 for o = 1, at most -1 for o = 0; infinite where p_hat is 0 and 1.

    Source: as :func:`bmse`.
    """
    p_hat = p_hat.double()
    # selected rather than multiplied: o = 1 never reads 1 / (1 - p_hat), which may be infinite
    return torch.where(o.bool(), 1 / p_hat, -1 / (1 - p_hat))


def bmse_sums(terms: Tensor, features: Tensor) -> Tensor:
    """Sum over the rows of terms ``[..., N]`` times features ``[N, d]`` or ``[..., N, d]``.

    Returns:
        ``[..., d]`` in float64, of any sign.

    Source: as :func:`bmse`.
    """
    return (terms.unsqueeze(-2) @ features.double()).squeeze(-2)


def dr_bias_terms(
    p_hat: Tensor, o: Tensor, e: Tensor, e_hat: Tensor
) -> Tensor:  # [..., N] x 4 -> [..., N]
    r"""Summands :math:`(o - \hat p)(e - \hat e) / \hat p`; p_hat in (0, 1].

    Source: as :func:`dr_bias`.
    """
    p_hat = p_hat.double()
    return (o.double() - p_hat) * (e.double() - e_hat.double()) / p_hat


def dr_variance_terms(
    p_hat: Tensor, p: Tensor, e: Tensor, e_hat: Tensor
) -> Tensor:  # [..., N] x 4 -> [..., N]
    r"""Summands :math:`p (1 - p) / \hat p^2 (e - \hat e)^2`; p_hat in (0, 1], p in [0, 1].

    Source: as :func:`dr_variance`.
    """
    p = p.double()
    return p * (1 - p) * ((e.double() - e_hat.double()) / p_hat.double()).square()


def _weight_like(p_hat: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return torch.ones_like(p_hat, dtype=torch.float64)
    return weight.double().expand_as(p_hat)
