r"""Imputation losses :math:`\frac{|O|}{|D|}\mathrm{mean}_O\,\omega(\hat p)(e-\hat e)^2`.

The weight function is what distinguishes the doubly robust variants of the literature; p_hat is
clipped by the caller to (0, 1]. ``label_loss`` has a loss of labels in the place of the square.
"""

from torch import Tensor

from upo.core.distributed import batch_mean


def imputation_loss(
    e: Tensor, e_hat: Tensor, omega: Tensor, density: float
) -> Tensor:  # [R, B] x 3 -> [R]
    """Weighted squared gap between the prediction error and the imputed error over O; at least 0.

    Source: Wang et al., "Doubly robust joint learning", ICML 2019. Differs: a mean over the batch,
    where public code takes a sum; e and e_hat as the prediction loss takes them.
    """
    return density * batch_mean(omega * (e - e_hat) ** 2)


def label_loss(loss: Tensor, omega: Tensor, density: float) -> Tensor:  # [R, B] x 2 -> [R]
    r"""Weighted loss of the pseudo-label against the label over O, such as a cross-entropy.

    .. math:: \frac{|O|}{|D|}\mathrm{mean}_O\,\omega(\hat p)\,CE(\sigma(g), r)

    The squared gap of form A is :math:`(\sigma(g)-r)^2\,\mathrm{logit}(f)^2`, which teaches nothing
    where the prediction is near one half; this does not look at the prediction. The doubly robust
    estimate stays unbiased under right propensities, whatever the pseudo-label is fitted by.
    At least 0, for labels in [0, 1].

    Source: after the original code of MRDR (Guo et al., SIGIR 2021), which fits labels so.
    """
    return density * batch_mean(omega * loss)


def omega_jl(p_hat: Tensor) -> Tensor:  # any shape -> the same
    r"""DR-JL: :math:`1/\hat p`, at least 1.

    Source: Wang et al., ICML 2019, eq. (8).
    """
    return 1.0 / p_hat


def omega_mrdr(p_hat: Tensor) -> Tensor:  # any shape -> the same
    r"""MRDR: :math:`(1-\hat p)/\hat p^2`, minimises the variance; at least 0.

    Source: Guo et al., SIGIR 2021.
    """
    return (1.0 - p_hat) / p_hat**2


def omega_bias(p_hat: Tensor) -> Tensor:  # any shape -> the same
    r"""DR-BIAS: :math:`(1-\hat p)^2/\hat p^3`, minimises the bias; at least 0.

    Source: Dai et al., KDD 2022.
    """
    return (1.0 - p_hat) ** 2 / p_hat**3


def omega_mse(p_hat: Tensor, mix: float | Tensor = 0.5) -> Tensor:  # any shape -> the same
    r"""DR-MSE: :math:`\lambda\,\omega_{bias}+(1-\lambda)\,\omega_{mrdr}`, at least 0.

    Source: Dai et al., KDD 2022. The paper learns a mix of each pair (``upo.models.mix.Mix``).

    Args:
        p_hat: Clipped propensity.
        mix: :math:`\lambda` in [0, 1], of all or of each pair; 1 is DR-BIAS, 0 is MRDR.
    """
    return mix * omega_bias(p_hat) + (1.0 - mix) * omega_mrdr(p_hat)


def relative_spread(e_hat: Tensor) -> Tensor:  # [T, R, B] -> [R, B]
    r"""Standard deviation of T imputed errors of a pair over their mean, at least 0; 0 of zeros.

    The DR variance of a pair exceeds that of IPS where :math:`\hat e>2e`. For a normal e around the
    imputed error with relative spread :math:`\tau` that has probability :math:`\Phi(-1/2\tau)`,
    so the pairs of least spread are those whose imputation is least likely to mislead.

    Source: Song et al., "CDR", CIKM 2023, whose filter reads mean and variance. Differs: the
    criterion is derived here.
    """
    mean = e_hat.mean(0)
    spread = (e_hat - mean).square().mean(0).sqrt()
    return spread / mean.clamp(min=1e-12)
