r"""What the lemmas and theorems of UPO state, as functions of the quantities they are about.

Symbols: p_hat = learned propensity, p = true propensity, o ~ Bernoulli(p) = pair observed,
gap = e - e_hat, phi = feature with :math:`|\phi|\le1`, w = weight, B_m = bin, D = all pairs (the
last axis). All of it is small and exact in float64; training does not need this module except for
``beta_star``.

Source: Zheng et al., "Unified Propensity Optimization", AAAI 2026, section "Theory".
"""

import math

import torch
from torch import Tensor

from upo.functional.binning import bin_sums


def variance_first_order(p_hat: Tensor, p: Tensor, gap: Tensor) -> Tensor:  # [..., N] -> [...]
    r"""Lemma 1: the first-order change of the DR variance when p_hat moves away from p.

    .. math:: \frac{2}{|D|^2}\sum\frac{1-p}{p^2}(p-\hat p)(e-\hat e)^2

    It is signed and leaves V(p) out: it approximates :math:`V(\hat p)-V(p)`, not V itself. Both
    propensities lie in (0, 1].

    Source: Zheng et al., AAAI 2026, Lemma 1.

    >>> p = torch.tensor([0.5])
    >>> variance_first_order(p - 0.125, p, torch.ones(1)).item()
    0.5
    """
    terms = (1 - p.double()) / p.double() ** 2 * (p.double() - p_hat.double()) * gap.double() ** 2
    return 2 * terms.sum(-1) / terms.shape[-1] ** 2


def expected_upo_bound(
    p: Tensor, weight: Tensor | float, index: Tensor, num_bins: int
) -> Tensor:  # [..., N] -> [...]
    r"""Theorem 1: at p_hat = p and for a weight that does not see o, E L_UPO is at most this.

    .. math:: \frac1{|D|}\sum_m\sqrt{\sum_{B_m}w^2p(1-p)}

    By :math:`E|S_m|\le\sqrt{E S_m^2}`. With M bins and bounded w it falls as
    :math:`\sqrt{M/|D|}`. At least 0.

    Source: Zheng et al., AAAI 2026, Theorem 1, whose limit it gives a rate.

    Raises:
        ValueError: If ``p`` and ``index`` differ in shape.
    """
    variance = bin_sums((weight**2 * p * (1 - p)).expand_as(p), index, num_bins)
    return variance.sqrt().sum(-1) / p.shape[-1]


def free_adversary_gain(p_hat: Tensor, o: Tensor) -> Tensor:  # [..., N] -> [...]
    r"""What an adversary gains that may pick any :math:`|w|\le1` for each pair: mean |o - p_hat|.

    It picks sign(o - p_hat), whatever the bins. The gain does not vanish at p_hat = p, where it is
    2 p (1 - p) on average: Theorem 1 needs a weight that cannot follow o. In [0, 1].

    Source: the case that Theorem 1 of Zheng et al., AAAI 2026, leaves out; worked out here.
    """
    return (o - p_hat).abs().mean(-1)


def beta_star(ce: Tensor, upo: Tensor) -> tuple[Tensor, Tensor]:  # [..., T] x 2 -> [...] x 2
    r"""Theorem 2: the beta that minimises the variance of CE + beta L_UPO, and rho squared.

    .. math:: \beta^*=-\mathrm{Cov}(CE, L_{UPO})/V(L_{UPO}),\qquad
              V(CE+\beta^*L_{UPO})=(1-\rho^2)V(CE)

    It is negative where the two rise together; with beta >= 0 the variance then cannot fall. A loss
    that does not vary gives beta 0 and rho 0. Beta has any sign, rho squared lies in [0, 1].

    Source: Zheng et al., AAAI 2026, Theorem 2.

    Args:
        ce: T values of the cross-entropy under resampling of o.
        upo: The values of L_UPO of the same samples.

    Raises:
        ValueError: If the shapes differ or T < 2.

    >>> beta, rho2 = beta_star(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    >>> beta.item(), rho2.item()
    (0.5, 1.0)
    """
    if ce.shape != upo.shape or ce.shape[-1] < 2:
        raise ValueError(
            "beta_star needs at least two values of each loss, of one shape, got "
            f"{tuple(ce.shape)} and {tuple(upo.shape)}."
        )
    x, y = ce.double(), upo.double()
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    cov, var_x, var_y = (x * y).mean(-1), (x * x).mean(-1), (y * y).mean(-1)
    zero = torch.zeros_like(cov)
    beta = torch.where(var_y > 0, -cov / var_y, zero)
    rho2 = torch.where(var_x * var_y > 0, cov**2 / (var_x * var_y), zero)
    return beta, rho2


def concentration_bound(
    q: Tensor, index: Tensor, num_bins: int, eta: float
) -> Tensor:  # [..., N] -> [...]
    r"""Theorem 3: its bound of :math:`|L_{metric}-L_{UPO}|`, said to hold with chance 1 - eta.

    .. math:: \sqrt{2\log(2/\eta)\sum_m|B_m|^2Q_m^2/|D|^2},\qquad Q_m=\mathrm{mean}_{B_m}\,q

    At least 0. With bins of equal size it falls with their number, not with |D|.

    Source: Zheng et al., AAAI 2026, Theorem 3.

    Args:
        q: :math:`1/(\hat p(1-\hat p))` for balance, :math:`1/\hat p` for bias,
            :math:`2/(|D|\hat p)` for variance as printed.
        index: Bin of each pair.
        num_bins: M.
        eta: Chance of failure in (0, 1).

    Raises:
        ValueError: If ``eta`` is outside (0, 1), or ``q`` and ``index`` differ in shape.
    """
    if not 0 < eta < 1:
        raise ValueError(f"eta must lie in (0, 1), got {eta}.")
    mass = bin_sums(q, index, num_bins)  # |B_m| Q_m
    return math.sqrt(2 * math.log(2 / eta)) * mass.square().sum(-1).sqrt() / q.shape[-1]
