r"""Weights that may be wrong: the band around 1/p of a sensitivity model, and the worst in it.

Shapes are ``[R, B]`` with the rows of O of a *whole* batch on the last axis; each replica for
itself.
"""

import torch
from torch import Tensor

from upo.core.running import running_sum


def weight_band(p_hat: Tensor, gamma: float) -> tuple[Tensor, Tensor]:  # [R, B] -> [R, B] x 2
    r"""Least and largest weight of the marginal sensitivity model.

    .. math:: 1+(1/\hat p-1)/\Gamma\;\le\;w\;\le\;1+\Gamma\,(1/\hat p-1)

    that is, the odds of 1/w lie within a factor :math:`\Gamma` of those of p_hat. At least 1.

    Source: Ding et al., "Addressing unmeasured confounder for recommendation with sensitivity
    analysis", KDD 2022, section 4.

    Args:
        p_hat: Propensities in (0, 1].
        gamma: :math:`\Gamma`, at least 1; 1 leaves 1/p_hat.

    Raises:
        ValueError: If gamma is below 1.
    """
    if gamma < 1:
        raise ValueError(f"weight_band needs gamma of at least 1, got {gamma}.")
    odds = 1.0 / p_hat - 1.0
    return 1.0 + odds / gamma, 1.0 + gamma * odds


def worst_weights(gain: Tensor, low: Tensor, high: Tensor, total: Tensor) -> Tensor:
    r"""Weights in a band, of a given sum, that make :math:`\sum w\cdot gain` largest.

    A linear program with one constraint: all start low, and the rows of the largest gain are raised
    to high until the sum is spent. In O(B log B), without a learning rate.

    Source: the inner problem of Ding et al., KDD 2022, section 4. Differs: the sum of the weights
    is kept at that of 1/p_hat, without which errors of at least 0 are weighted high everywhere and
    there is no adversary.

    Args:
        gain: ``[R, B]`` what a unit of weight is worth.
        low: ``[R, B]`` least weights.
        high: ``[R, B]`` largest weights.
        total: ``[R]`` sum of the weights, between the sums of ``low`` and ``high``.

    Returns:
        ``[R, B]``, in the band.

    >>> low, high = torch.ones(1, 3), torch.full((1, 3), 3.0)
    >>> worst_weights(torch.tensor([[0.1, 0.9, 0.5]]), low, high, torch.tensor([6.0]))
    tensor([[1., 3., 2.]])
    """
    order = gain.argsort(dim=-1, descending=True, stable=True)
    room = (high - low).gather(-1, order)
    before = running_sum(room) - room  # what rows of larger gain take
    budget = (total - low.sum(-1))[:, None]
    raised = torch.minimum((budget - before).clamp(min=0.0), room)
    return low + torch.zeros_like(low).scatter(-1, order, raised)
