"""Sums across processes that make N devices equal one.

Every rank holds a slice of the global batch. A loss is a function of *global* batch sums, so each
rank computes the same loss value; its gradient with respect to this rank's slice is a part of the
whole gradient, and the parts are added explicitly before the optimiser steps.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LARGE = 2**16  # elements of a gradient that is not worth a copy


def world_size() -> int:
    """Number of processes that share the batch; 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number in the group; 0 outside a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def share(total: int, of: int | None = None) -> tuple[int, int]:
    """A rank's slice ``[lo, hi)`` of ``total``, this one's by default; they differ by one."""
    size, me = world_size(), rank() if of is None else of
    return total * me // size, total * (me + 1) // size


class _SumAcrossRanks(torch.autograd.Function):
    """All-reduce whose backward hands the gradient through; ranks' gradients are summed later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


def sum_across_ranks(x: Tensor) -> Tensor:
    """Differentiable sum of ``x`` (any shape) over the processes."""
    if world_size() == 1:
        return x
    total: Tensor = _SumAcrossRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


class _SumGradientsAcrossRanks(torch.autograd.Function):
    """Identity whose backward adds the ranks' gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def into_rows(x: Tensor) -> Tensor:
    """A global value (any shape) that enters terms of single rows, which are summed once more.

    Each rank's rows give a part of its gradient only, so the parts are added before they reach what
    the value was made of. Without this a sum within a sum has a wrong gradient on several ranks.
    Every rank must call it, and read its result in nothing but row terms.
    """
    if world_size() == 1:
        return x
    shared: Tensor = _SumGradientsAcrossRanks.apply(x)  # type: ignore[no-untyped-call]
    return shared


def batch_sum(x: Tensor) -> Tensor:  # [..., B] -> [...]
    """Sum over the global batch: the last axis here, and the slices of all ranks."""
    return sum_across_ranks(x.sum(-1))


def batch_mean(x: Tensor) -> Tensor:  # [..., B] -> [...]
    """Mean over the global batch; 0 of an empty one."""
    if world_size() == 1:
        return x.mean(-1) if x.shape[-1] else x.sum(-1)
    count = torch.full_like(x[..., :1].sum(-1), x.shape[-1])
    both = sum_across_ranks(torch.stack([x.sum(-1), count]))
    return both[0] / both[1].clamp(min=1.0)


def any_rank(found: Tensor) -> Tensor:
    """Where a mask (bool of any shape) is true on any rank."""
    return sum_across_ranks(found.float()) > 0


def sum_gradients(grads: Iterable[Tensor]) -> None:
    """Add the ranks' gradients in place: large ones where they are, the others as one tensor."""
    if world_size() == 1:
        return
    parts = list(grads)
    large, small = ([g for g in parts if (g.numel() >= LARGE) == which] for which in (True, False))
    under_way = []
    for g in large:
        whole = g.contiguous()  # almost always itself
        under_way.append((g, whole, dist.all_reduce(whole, async_op=True)))
    if small:
        flat = torch.cat([g.reshape(-1) for g in small])
        dist.all_reduce(flat)
        for g, total in zip(small, torch.split(flat, [g.numel() for g in small]), strict=True):
            g.copy_(total.view_as(g))
    for g, whole, work in under_way:
        work.wait()
        if whole is not g:
            g.copy_(whole)


def gather_rows(x: Tensor) -> Tensor:  # [..., b] -> [..., B], in rank order
    """Concatenate uneven slices of the last axis over ranks (no gradient)."""
    size = world_size()
    if size == 1:
        return x
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(size)]
    dist.all_gather(counts, torch.tensor([x.shape[-1]], device=x.device))
    longest = max(int(c) for c in counts)
    padded = torch.nn.functional.pad(x.detach(), (0, longest - x.shape[-1])).contiguous()
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded)
    return torch.cat([p[..., : int(c)] for p, c in zip(parts, counts, strict=True)], dim=-1)
