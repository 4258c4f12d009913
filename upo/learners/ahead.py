"""A step ahead of another player: what a meta step needs, without graphs of second order."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from upo.core.distributed import sum_gradients


def slopes(loss: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """Slope of the replicas' losses ``[R]`` in each parameter, over all ranks; no graph."""
    found = torch.autograd.grad(
        loss.sum(), params, allow_unused=True, materialize_grads=True, retain_graph=True
    )
    mine = [x.detach().clone() for x in found]
    sum_gradients(mine)
    return mine


def ahead(loss: Tensor, params: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """The parameters after a step of plain descent in the replicas' losses ``[R]``, as leaves."""
    way = slopes(loss, list(params.values()))
    return {
        name: (p.detach() - rate * d).requires_grad_()
        for (name, p), d in zip(params.items(), way, strict=True)
    }


def along(logit: Tensor, params: Sequence[Tensor], way: Sequence[Tensor]) -> Tensor:
    """How fast each logit ``[R, B]`` moves as the parameters go along a way; no graph."""
    one = torch.zeros_like(logit, requires_grad=True)
    found = torch.autograd.grad(logit, params, one, create_graph=True, allow_unused=True)
    both = [(s * d).sum() for s, d in zip(found, way, strict=True) if s is not None]
    (moved,) = torch.autograd.grad(torch.stack(both).sum(), one)
    return moved.detach()
