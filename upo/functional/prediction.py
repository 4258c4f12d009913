r"""Prediction losses: estimators of the ideal loss :math:`\frac1{|D|}\sum_D e_{ui}`.

All take batches of O (``_o``) and of D (``_d``), reduce the last axis over the global batch and
return one value for each replica. Paper symbols: e prediction error, at least 0; e_hat imputed
error; p_hat propensity in (0, 1], already clipped by the caller; ``density`` is |O| / |D|.
"""

from torch import Tensor

from upo.core.distributed import batch_mean, batch_sum


def naive_loss(e_o: Tensor) -> Tensor:  # [R, B] -> [R]
    """Mean error over observed pairs; ignores that they are missing not at random. At least 0.

    Source: Koren, Bell, Volinsky, "Matrix factorization techniques for recommender systems",
    IEEE Computer 42(8), 2009. Differs: any pointwise error, and no penalty here.
    """
    return batch_mean(e_o)


def ips_loss(e_o: Tensor, p_hat_o: Tensor, density: float) -> Tensor:  # [R, B] x 2 -> [R]
    r"""Inverse propensity score loss :math:`\frac{|O|}{|D|}\,\mathrm{mean}_O\, e/\hat p`.

    At least 0, and on a batch unbounded, as 1 / p_hat is.

    Source: Schnabel et al., "Recommendations as treatments", ICML 2016, eq. (3).
    """
    return density * batch_mean(e_o / p_hat_o)


def snips_loss(e_o: Tensor, p_hat_o: Tensor) -> Tensor:  # [R, B] x 2 -> [R]
    r"""Self-normalised IPS :math:`\sum_O (e/\hat p) / \sum_O (1/\hat p)`, for each batch.

    Invariant to a rescaling of the propensities; the ratio's bias is O(1 / B). Between the least
    and the largest error.

    Source: Swaminathan, Joachims, "The self-normalized estimator", NeurIPS 2015.
    """
    weight = 1.0 / p_hat_o
    return batch_sum(e_o * weight) / batch_sum(weight)


def dr_loss(
    e_o: Tensor, e_hat_o: Tensor, p_hat_o: Tensor, e_hat_d: Tensor, density: float
) -> Tensor:  # [R, B] x 3, [R, n] -> [R]
    r"""Doubly robust loss, in its textbook form.

    .. math:: \mathrm{mean}_D\,\hat e + \frac{|O|}{|D|}\mathrm{mean}_O\frac{e-\hat e}{\hat p}

    Unbiased when the propensities or the imputed errors are right, for every ratio of the two batch
    sizes. It may be negative on a batch.

    Source: Wang et al., "Doubly robust joint learning", ICML 2019, eq. (3).
    """
    return batch_mean(e_hat_d) + density * batch_mean((e_o - e_hat_o) / p_hat_o)


def dr_loss_public(
    e_o: Tensor, e_hat_o: Tensor, p_hat_o: Tensor, e_hat_d: Tensor
) -> Tensor:  # [R, B] x 3, [R, n] -> [R]
    r"""The doubly robust loss of most public code.

    .. math:: \Bigl(\sum_O e/\hat p-\sum_O\hat e+\sum_D\hat e\Bigr)/n_D

    Biased: the imputed error of observed pairs is not divided by the propensity, and the observed
    term is over-weighted by :math:`|D|/(G|O|)`, where G is the ratio of the batch sizes. It may be
    negative on a batch. Offered to reproduce figures made with it.

    Source: public code of the doubly robust estimators (after Wang et al., ICML 2019).
    """
    count = batch_sum(e_hat_d.new_ones(e_hat_d.shape))
    return (batch_sum(e_o / p_hat_o) - batch_sum(e_hat_o) + batch_sum(e_hat_d)) / count
