r"""Tilting: the least change of a propensity's logit that meets balance equations exactly."""

import torch
from torch import Tensor

from upo.core.distributed import sum_across_ranks

STEPS = 50  # of Newton's method; under ten are needed where a solution exists
LARGEST = 40.0  # exponent, so that no weight overflows
CLOSE = 1e-13  # relative fall of J that is no fall
RIDGE = 1e-9  # of |O|, for a solution where the equations have none


def tilt(
    logit: Tensor,
    b: Tensor,
    target: Tensor,
    start: Tensor | None = None,
    ridge: float = RIDGE,
) -> Tensor:  # [R, N], [R, N, C], [R, C] -> [R, C]
    r"""Coefficients s with :math:`\sum_O b/\hat p'=\sum_D b`.

    For :math:`\mathrm{logit}\,\hat p'=z+s^\top b` they minimise the convex

    .. math:: J(s)=\sum_O e^{-z-s^\top b}+s^\top\Bigl(\sum_D b-\sum_O b\Bigr)

    by Newton's method, each step halved until J falls. Weights :math:`1+e^{-z-s^\top b}` exceed 1.
    A solution exists if the sum of b over the unobserved pairs lies in the cone of b over O;
    otherwise a minute ridge ends at finite coefficients that miss the equations.

    Source: the constraint of Li et al., "StableDR", ICLR 2023, eq. (7), for :math:`b=(1,\hat e)`.
    Differs: solved instead of penalised.

    Args:
        logit: ``[R, N]`` logits z of the rows of O: this rank's.
        b: ``[R, N, C]`` what is balanced, of these rows.
        target: ``[R, C]`` sums of b over D, over all ranks.
        start: ``[R, C]`` where to start, 0 by default; the solution does not depend on it.
        ridge: Of |O|, above 0: the equations are missed by that times s.

    Returns:
        ``[R, C]``, of any sign, finite.
    """
    z, b, target = logit.double(), b.double(), target.double()
    rest = target - sum_across_ranks(b.sum(1))
    rows = sum_across_ranks(torch.ones_like(z).sum(-1))
    s = torch.zeros_like(rest) if start is None else start.double()

    def odds(s: Tensor) -> Tensor:
        return (-z - (b * s[:, None]).sum(-1)).clamp(max=LARGEST).exp()

    def value(s: Tensor) -> Tensor:
        penalty = ridge * rows * (s**2).sum(-1) / 2
        return sum_across_ranks(odds(s).sum(-1)) + (s * rest).sum(-1) + penalty

    level = value(s)
    eye = torch.eye(b.shape[-1], dtype=b.dtype, device=b.device)
    for _ in range(STEPS):
        weight = odds(s)[..., None] * b
        slope = rest - sum_across_ranks(weight.sum(1)) + ridge * rows[:, None] * s
        curve = sum_across_ranks(b.transpose(1, 2) @ weight)
        power = curve.diagonal(dim1=-2, dim2=-1).amax(-1).clamp(min=1e-300)
        curve = curve + (ridge * rows + 1e-12 * power)[:, None, None] * eye
        step = -torch.linalg.solve_ex(curve, slope[..., None])[0][..., 0]
        for _ in range(30):  # halvings, for all replicas that need one
            after = value(s + step)
            worse = ~(after <= level)
            if not bool(worse.any()):
                break
            step = torch.where(worse[:, None], step / 2, step)
        improved = after < level - CLOSE * level.abs()
        s = torch.where(improved[:, None], s + step, s)
        level = torch.where(improved, after, level)
        if not bool(improved.any()):
            break
    return s
