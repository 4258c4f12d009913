"""Mixtures of probabilities, case-control calibration, and a differentiable calibration error."""

import torch
from torch import Tensor

from upo.core.distributed import batch_mean, batch_sum, into_rows, sum_across_ranks


def mixture_logit(logits: Tensor, log_weight: Tensor) -> Tensor:  # [..., B, N] x 2 -> [..., B]
    r"""Logit of :math:`\sum_n w_n\sigma(z_n)`, finite however near to 0 or 1 the members are.

    Args:
        logits: Members' logits :math:`z_n` in the last axis.
        log_weight: Logarithms of weights that sum to 1 over the last axis; broadcast.

    Returns:
        ``[..., B]`` logits of the mixture, between the least and the largest member.

    Source: the mixtures of Kweon, Yu, WWW 2024 (experts) and of Gong, Ma, Entropy 27(2):196, 2025
    (propensities), here in logarithms.

    >>> mixture_logit(torch.tensor([200.0, 200.0]), torch.tensor([0.5, 0.5]).log())
    tensor(200.)
    """
    sigmoid = torch.nn.functional.logsigmoid
    one = torch.logsumexp(log_weight + sigmoid(logits), dim=-1)
    return one - torch.logsumexp(log_weight + sigmoid(-logits), dim=-1)


def case_control_loss(
    logit_o: Tensor, weight_o: Tensor, logit_d: Tensor, weight_d: Tensor, density: float
) -> Tensor:  # [R, B] x 2, [R, n] x 2 -> [R]
    r"""Cross-entropy of pairs sampled by outcome, at the population's rate :math:`\rho`.

    .. math:: \rho\,\mathrm{mean}_1(-\log\hat p)+(1-\rho)\,\mathrm{mean}_0(-\log(1-\hat p))

    The rate is known; that of the sample only follows from how it was drawn. So neither the ratio
    of the two parts nor its chance deviations shift the fit: a tenth of Coat alone has a rate some
    percent off. 0 of no pairs.

    Source: Manski, Lerman, "The estimation of choice probabilities from choice based samples",
    Econometrica 45(8), 1977.

    Args:
        logit_o: Logits of observed pairs.
        weight_o: Their weights; 0 leaves a pair out.
        logit_d: Logits of other pairs.
        weight_d: Their weights; 0 for those that were observed.
        density: Share :math:`\rho` of observed pairs in the population, in (0, 1).
    """
    softplus = torch.nn.functional.softplus
    parts = (weight_o, weight_o * softplus(-logit_o)), (weight_d, weight_d * softplus(logit_d))
    one, zero = (batch_sum(loss) / batch_sum(weight).clamp(min=1.0) for weight, loss in parts)
    return density * one + (1.0 - density) * zero


def soft_bins(logit: Tensor, num_bins: int, middle: float, span: float) -> Tensor:  # -> [..., B, M]
    r"""Membership of each probability in M soft bins with fixed centres on the logit axis.

    :math:`s_m=\mathrm{softmax}_m(-\tfrac12((z-c_m)/d)^2)`, the centres c evenly spaced over
    ``middle`` +- ``span`` at distance d. On the logit axis sparse data are told apart, which all
    fall in one bin of equal width; fixed centres cannot collapse to lower the error, as trained
    ones can.

    Args:
        logit: Logits of the probabilities.
        num_bins: M, at least 1.
        middle: Centre of the bins.
        span: Distance from the middle to the outer centres, positive.

    Returns:
        ``[..., B, M]`` in [0, 1], with sum 1 over the last axis.

    Source: after Gong, Ma, Entropy 27(2):196, 2025 (DECE). Differs: a linear layer learns theirs.
    """
    if num_bins == 1:
        return torch.ones_like(logit).unsqueeze(-1)
    centres = torch.linspace(
        middle - span, middle + span, num_bins, dtype=logit.dtype, device=logit.device
    )
    distance = (logit.unsqueeze(-1) - centres) * ((num_bins - 1) / (2 * span))
    return torch.softmax(-0.5 * distance.clamp(-1e3, 1e3) ** 2, dim=-1)


def soft_ece(
    p_hat: Tensor,  # [R, B]
    outcome: Tensor,  # [R, B] 0/1
    membership: Tensor,  # [R, B, M], sums to 1 over M
    weight: Tensor | None = None,  # [R, B]
) -> Tensor:  # [R]
    r"""Differentiable ECE :math:`\sum_m|\sum_i w_i s_{im}(o_i-\hat p_i)|\,/\,\sum_i w_i`.

    With hard bins it is the expected calibration error. In [0, 1] for outcomes in [0, 1].

    Source: Gong, Ma, Entropy 27(2):196, 2025 (DECE). Differs: see ``public_soft_ece``, n / M times
    this where weights are 1.
    """
    w = torch.ones_like(p_hat) if weight is None else weight
    gap = membership * (w * (outcome - p_hat)).unsqueeze(-1)
    total = batch_sum(w).clamp(min=torch.finfo(w.dtype).tiny)  # 0 of no pairs
    return sum_across_ranks(gap.sum(-2)).abs().sum(-1) / total


def public_soft_ece(
    p_hat: Tensor,  # [R, B]
    outcome: Tensor,  # [R, B]
    membership: Tensor,  # [R, B, M], sums to 1 over M
    scale: Tensor | float = 1.0,  # [R], divides the outcomes' mass
) -> Tensor:  # [R]
    r"""DECE of public code: :math:`\frac1M\sum_m|\frac1c\sum_i s_{im}o_i-\sum_i s_{im}\hat p_i|`.

    A mean over bins of sums over the batch, so it is at least 0 and grows with the batch. For
    imputations public code takes errors e in the place of labels and :math:`c=\sum_i1/\hat p_i`, so
    that a mean error per inverse propensity is compared with a sum of pseudo-labels, quantities of
    different units.

    Source: public code of Gong, Ma, Entropy 27(2):196, 2025. Differs: the bins' centres are fixed.
    """
    both = torch.stack([outcome, p_hat], dim=-1)  # [R, B, 2]
    mass = sum_across_ranks(membership.transpose(-1, -2) @ both)  # [R, M, 2]
    outcomes = mass[..., 0] / (scale.unsqueeze(-1) if isinstance(scale, Tensor) else scale)
    return (outcomes - mass[..., 1]).abs().mean(-1)


def looked_ahead(
    alpha: Tensor,  # [R, J]
    logits: Tensor,  # [R, B, J]
    observed: Tensor,  # [R, B] 0/1
    lr: float,
) -> Tensor:  # [R, J]
    r"""Mixture weights after one gradient step on the cross-entropy, with the graph to the members.

    :math:`\alpha'=\alpha-\eta\,\nabla_\alpha CE(\bar p(\alpha),o)`, the inner step of a bi-level
    problem. The gradient is written out, :math:`\frac{\bar p-o}{\bar p(1-\bar p)}s_j(p_j-\bar p)`,
    so that it is a batch mean. The result is meant for rows' mixtures: on several devices their
    gradients are added before they reach the members. The weights are of any sign, as they enter a
    softmax.

    Source: Gong, Ma, Entropy 27(2):196, 2025, the inner step of the propensities.
    """
    share = torch.softmax(alpha, dim=-1)[:, None]  # [R, 1, J]
    p = torch.sigmoid(logits)
    mean = (share * p).sum(-1, keepdim=True)
    spread = (mean * (1 - mean)).clamp(min=1e-6)
    slope = (mean - observed.unsqueeze(-1)) / spread * share * (p - mean)
    return into_rows(alpha - lr * batch_mean(slope.transpose(-1, -2)))
