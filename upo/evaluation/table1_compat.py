"""The four diagnostics as the published code of UPO scored them for its Table 1.

They differ from the definitions of the paper, and are here so that its figures can be compared:
ECE and BMSE score propensities against *rating labels* in the place of observation indicators, so
the true propensities do not score 0; bias and variance take the likelihood of a positive rating
for the error and the prediction for the imputed error.
"""

import torch
from torch import Tensor

from upo import metrics
from upo.data.rating_data import Truth
from upo.errors import InputError
from upo.evaluation.mar import MarSet
from upo.evaluation.populations import unclipped
from upo.models.estimator import Estimator
from upo.pairs.target import Rating


def table1_compat(
    estimator: Estimator, truth: Truth | None, mar: MarSet, num_bins: int = 10
) -> tuple[dict[str, Tensor], metrics.Reliability]:
    r"""ECE, BMSE, bias and variance on the test pairs, n of them.

    With p_hat in [1e-6, 1 - 1e-6] but otherwise unclipped, p the true propensity, r = P(r = 1), y
    the rating label and f the prediction:

    .. math::
        \mathrm{ECE} &= \sum_m |B_m|/n \cdot |mean_{B_m} y - mean_{B_m} \hat p|
            \quad\text{(bins of equal mass)} \\
        \mathrm{BMSE} &= (1/n \sum (y/\hat p - (1-y)/(1-\hat p)) f)^2 \\
        \mathrm{Bias} &= 1/n |\sum (p - \hat p)(r - f)/\hat p| \\
        \mathrm{Var} &= 1/n^2 \sum p(1-p)/\hat p^2 (r - f)^2

    Args:
        estimator: The networks.
        truth: Of the simulated world.
        mar: The test pairs.
        num_bins: Bins of the ECE.

    Returns:
        Values ``[R]`` by name, and the bins of the ECE.

    Raises:
        InputError: If the dataset is not simulated, or has no test pairs.
    """
    if truth is None or not len(mar):
        raise InputError(
            "diagnostics=table1_compat needs a dataset with true propensities and a test set, as "
            "ml100k, semisynthetic and synthetic have; use diagnostics=correct."
        )
    if isinstance(estimator.space.target, Rating):
        raise InputError(
            "diagnostics=table1_compat scores predicted probabilities, and target=rating predicts "
            "ratings; use diagnostics=correct."
        )
    device = estimator.space.keys.device
    ece = metrics.ExpectedCalibrationError(num_bins, "equal_mass").to(device)
    bmse = metrics.BalancedMeanSquaredError().to(device)
    bias, variance = metrics.DRBias().to(device), metrics.DRVariance().to(device)
    for pairs, rows in mar.blocks(estimator.space):
        p_hat = unclipped(estimator, pairs)
        f = torch.sigmoid(estimator.logit("prediction", pairs)).double()
        y = mar.labels[rows].expand_as(p_hat)
        p = truth.propensity(pairs.users, pairs.items)
        r = truth.preference(pairs.users, pairs.items)
        ece.update(p_hat, y)
        bmse.update(p_hat, y, f.unsqueeze(-1))
        bias.update(p_hat, p, r, f)
        variance.update(p_hat, p, r, f)
    values = {
        "ece": ece.compute(),
        "bmse": bmse.compute(),
        "dr_bias": bias.compute(),
        "dr_variance": variance.compute(),
    }
    return values, ece.reliability()
