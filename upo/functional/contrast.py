r"""Prediction losses without a propensity: contrast of the log with D, and imputation alone.

Batches of O (``_o``) and of D (``_d``); the last axis is reduced over the global batch, one value
for each replica. Paper symbols: f prediction, e prediction error, e_hat imputed error.
"""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean

TINY = 1e-6  # least mean prediction inside a logarithm: an empty batch has mean 0


def contrast_loss(
    e_o: Tensor, f_logit_o: Tensor, f_logit_d: Tensor, alpha: float, gamma: float
) -> Tensor:  # [R, B] x 2, [R, n] -> [R]
    r"""Error on O, contrasted with the mean prediction on D, less confident by a penalty.

    .. math:: \mathrm{mean}_O e + \alpha\,CE(m_D, m_O) + \gamma\,\mathrm{mean}_O f\log f

    with the mean predictions :math:`m_O` (the target) and :math:`m_D` (the probability). The
    contrast is least at :math:`m_D=m_O`: it pulls the level on D to that of the log, which is wrong
    where the log is rosier, so judge a model by its ranking, too. With both factors 0 it is the
    naive loss. At least 0 but for the last term, which lies in :math:`[-\gamma/e, 0]`.

    Source: Wang et al., "Information theoretic counterfactual learning from missing-not-at-random
    feedback", NeurIPS 2020. Differs: official code has the mean of O in place of D in the contrast,
    which rewards high predictions on O alone.

    Args:
        e_o: Errors on O.
        f_logit_o: Logits of the predictions on O.
        f_logit_d: Logits of the predictions on D.
        alpha: Weight of the contrast, at least 0.
        gamma: Weight of the confidence penalty, at least 0.
    """
    f_o = torch.sigmoid(f_logit_o)
    m_o, m_d = batch_mean(f_o), batch_mean(torch.sigmoid(f_logit_d)).clamp(TINY, 1.0 - TINY)
    contrast = -m_o * m_d.log() - (1.0 - m_o) * (1.0 - m_d).log()
    confidence = batch_mean(f_o * torch.nn.functional.logsigmoid(f_logit_o))
    return batch_mean(e_o) + alpha * contrast + gamma * confidence


def imputed_loss(
    e_o: Tensor, e_hat_o: Tensor, e_hat_d: Tensor, density: float
) -> Tensor:  # [R, B] x 2, [R, n] -> [R]
    r"""Error imputation: observed errors where there are any, imputed ones elsewhere.

    .. math:: \mathrm{mean}_D\bigl[o\,e+(1-o)\,\hat e\bigr]
        =\mathrm{mean}_D\,\hat e+\frac{|O|}{|D|}\mathrm{mean}_O(e-\hat e)

    which is the doubly robust loss at :math:`\hat p=1`; right only if the imputed errors are.
    It may be negative on a batch.

    Source: Steck, "Training and testing of recommender systems on data missing not at random",
    KDD 2010; the EIB estimator of Wang et al., ICML 2019, eq. (2).

    Args:
        e_o: Errors on O.
        e_hat_o: Imputed errors on O.
        e_hat_d: Imputed errors on D.
        density: |O| / |D|.
    """
    return batch_mean(e_hat_d) + density * batch_mean(e_o - e_hat_o)
