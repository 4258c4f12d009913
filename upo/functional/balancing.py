r"""Terms that tie the propensity to the prediction: balance, joint likelihood, variance bounds.

All take a batch of D (or rows of O where said), reduce the last axis over the global batch and
return one value for each replica. Paper symbols: o observed, p_hat propensity, f prediction, phi
balanced feature, e and e_hat prediction and imputed error.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from upo.core.distributed import batch_mean, batch_sum


def bmse_loss(
    p_hat: Tensor, o: Tensor, phi: Tensor, *, unbiased: bool = False
) -> Tensor:  # [R, B] x 3 -> [R]
    r"""Squared imbalance of a feature between observed and unobserved pairs (BMSE).

    .. math:: \Bigl[\mathrm{mean}_D\Bigl(\frac{o}{\hat p}-\frac{1-o}{1-\hat p}\Bigr)\phi\Bigr]^2

    The mean has expectation 0 at the true propensity, whatever the feature. Of a batch, the
    square carries the variance of the mean besides: with p of .08 and a thousand pairs it is
    several times the BMSE itself, and inflated propensities lower it. ``unbiased`` leaves it out,

    .. math:: \frac{(\sum h)^2-\sum h^2}{n(n-1)},\quad
        h=\Bigl(\frac{o}{\hat p}-\frac{1-o}{1-\hat p}\Bigr)\phi

    whose mean is the square of the mean; single batches may be below 0. In squared units of the
    feature.

    Source: Li et al., "Propensity matters", ICML 2023, section 4 (IPS-V2, DR-V2).

    Args:
        p_hat: Propensities, inside (0, 1): clipped by the caller on both sides.
        o: 0/1 indicators of observation.
        phi: Feature to balance.
        unbiased: Leave the pairs' own squares out; a batch of fewer than two has 0 then.

    >>> half = torch.tensor([0.5, 0.5])
    >>> bmse_loss(half, torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.5]))
    tensor(0.2500)
    """
    h = (o / p_hat - (1.0 - o) / (1.0 - p_hat)) * phi
    if not unbiased:
        return batch_mean(h) ** 2
    n = batch_sum(torch.ones_like(h))
    return (batch_sum(h) ** 2 - batch_sum(h**2)) / (n * (n - 1.0)).clamp(min=1.0)


def joint_cross_entropy(p_logit: Tensor, f_logit: Tensor, target: Tensor) -> Tensor:
    r"""Cross-entropy of :math:`\hat p f` (observed *and* positive), from both logits, any shape.

    Written with :math:`1-\hat p f=(1-\hat p)+\hat p(1-f)` in logs, so it is finite for all logits.
    At least 0 for targets in [0, 1]; the target is o r, 1 where a pair is observed and positive.

    Source: Li et al., "Propensity matters", ICML 2023, the joint term. Differs: cross-entropy, for
    their squared error.
    """
    both = logsigmoid(p_logit) + logsigmoid(f_logit)
    neither = torch.logaddexp(logsigmoid(-p_logit), logsigmoid(p_logit) + logsigmoid(-f_logit))
    return -target * both - (1.0 - target) * neither


def joint_squared_error(p_logit: Tensor, f_logit: Tensor, target: Tensor) -> Tensor:
    r"""Squared error :math:`(\hat p f-t)^2` of an observed *and* positive pair, any shape.

    In [0, 1] for targets in [0, 1].

    Source: Li et al., "Propensity matters", ICML 2023, the joint term of the official code.
    """
    return (torch.sigmoid(p_logit) * torch.sigmoid(f_logit) - target) ** 2


def orthogonality(p_hat: Tensor, o: Tensor, e_hat: Tensor) -> Tensor:  # [R, B] x 3 -> [R]
    r"""Constraint of StableDR, :math:`\mathrm{mean}_D(1-o/\hat p)(\hat e-\overline{\hat e})`.

    Where it is 0, the self-normalised loss of the imputed errors over O equals their mean over D,
    which makes SNIPS doubly robust. Only pairs with o = 1 read the propensity, in (0, 1]. Of any
    sign, in units of the error.

    Source: Li, Zheng, Wu, "StableDR", ICLR 2023, eq. (7).
    Differs: a mean where public code takes a sum, whose square grows with the batch.
    """
    centred = e_hat - batch_mean(e_hat).unsqueeze(-1)
    return batch_mean((1.0 - o / p_hat) * centred)


def propensity_bias_term(p_hat: Tensor, o: Tensor, gap: Tensor) -> Tensor:  # -> [R]
    r""":math:`\mathrm{mean}_D\,o\,(o-\hat p)^2\Delta^2/\hat p^2`, a bound of the squared DR bias.

    Unobserved pairs would add :math:`\Delta^2`, which is unknown and free of the propensity. Takes
    ``[R, B]`` pairs of D; at least 0.

    Source: Zhou et al., "Generalized propensity learning", CIKM 2023.

    Args:
        p_hat: Propensities above 0.
        o: 0/1: the pair is observed and its error known.
        gap: :math:`\Delta=e-\hat e`, frozen; read only where o.
    """
    known = torch.where(o > 0, gap, torch.zeros_like(gap))
    return batch_mean(((1.0 - p_hat) / p_hat * known) ** 2)


def propensity_variance_term(p_hat: Tensor, o: Tensor, gap: Tensor, count: int) -> Tensor:  # -> [R]
    r""":math:`\mathrm{mean}_D\,o\,\Delta^2/\hat p^2` over ``count``, a bound of the DR variance.

    Takes ``[R, B]`` pairs of D as :func:`propensity_bias_term`; at least 0.

    Source: Zhou et al., CIKM 2023, with the authors' erratum: ``count`` is |D|, so the sum over D
    is divided by :math:`|D|^2`. Their code divides by the size of the batch.
    """
    known = torch.where(o > 0, gap, torch.zeros_like(gap))
    return batch_mean((known / p_hat) ** 2) / count


def squared_mean_estimate(q: Tensor, k: int) -> Tensor:  # any shape
    r"""Unbiased :math:`q_2=\frac{k}{k-1}q^2-\frac{q}{k-1}` for :math:`p^2`, q the mean of k draws.

    In [0, 1], as q is a multiple of 1 / k.

    Source: Zheng et al., "UMVUE-DR", ICDM workshop 2024.

    Args:
        q: Mean of k independent Bernoulli(p) draws.
        k: Number of draws, at least 2.

    Raises:
        ValueError: If ``k < 2``.

    >>> squared_mean_estimate(torch.tensor([0.5, 1.0]), 2)
    tensor([0., 1.])
    """
    if k < 2:
        raise ValueError(f"squared_mean_estimate needs k of at least 2, got {k}.")
    return (k * q**2 - q) / (k - 1)


def umvue_terms(
    p_hat: Tensor, q: Tensor, k: int, gap: Tensor
) -> tuple[Tensor, Tensor]:  # [R, B] of O -> [R] x 2
    r"""Bias and variance bounds of the propensity with p and p² estimated from neighbours.

    .. math:: \mathrm{mean}_O\frac{q_2-2q\hat p+\hat p^2}{\hat p^2}\Delta^2,\qquad
              \mathrm{mean}_O\frac{q-q_2}{\hat p^2}\Delta^2

    Source: Zheng et al., "UMVUE-DR", ICDM workshop 2024.

    Args:
        p_hat: Propensities of observed rows, above 0.
        q: Share of observed pairs among the k neighbours of each row.
        k: Neighbours, at least 2.
        gap: :math:`\Delta=e-\hat e`, frozen.

    Returns:
        The bias and the variance bound, ``[R]`` each, in squared units of the error.

    Raises:
        ValueError: If ``k < 2``.
    """
    q2 = squared_mean_estimate(q, k)
    scale = (gap / p_hat) ** 2
    bias = batch_mean((q2 - 2.0 * q * p_hat + p_hat**2) * scale)
    return bias, batch_mean((q - q2) * scale)
