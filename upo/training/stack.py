"""Stacks that shrink: replicas of a run that have stopped or failed are computed no longer.

A smaller stack is built as the whole one is, for fewer seeds, and takes over the state of those
that go on: what a checkpoint would hold of them. Since no replica reads another's numbers, they end
as in the whole stack.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from upo.core.distributed import any_rank
from upo.core.optim import ReplicaAdam
from upo.core.shards import spread
from upo.errors import InputError
from upo.learners.base import Learner
from upo.models.estimator import Estimator

REMEDY = "lower that player's learning rate or raise estimator.weighting.p_min."
LARGEST = 1e9  # of a parameter; the product of four of them is a float32


class DivergenceError(InputError):
    """Every replica has become NaN or infinite."""


def rows_of(value: Tensor, positions: Sequence[int], replicas: int) -> Tensor:
    """Some replicas' part of a replica-major tensor; one without elements is as it was.

    >>> rows_of(torch.arange(6.0), [0, 2], replicas=3)
    tensor([0., 1., 4., 5.])
    """
    if not value.numel():
        return value.clone()
    each = value.reshape(replicas, -1)[list(positions)]
    return each.reshape(len(positions) * (len(value) // replicas), *value.shape[1:])


def part_of_state(
    state: Mapping[str, Tensor], positions: Sequence[int], replicas: int
) -> dict[str, Tensor]:
    """Some replicas' part of a state whose tensors are replica-major."""
    return {name: rows_of(value, positions, replicas) for name, value in state.items()}


def hand_over(
    before: tuple[Estimator, Mapping[str, Learner]],
    after: tuple[Estimator, Mapping[str, Learner]],
    positions: Sequence[int],
) -> None:
    """Give a smaller stack the parameters, buffers and moments of its replicas.

    Args:
        before: The networks and the players of a stack.
        after: Those of the smaller one, on the same device.
        positions: Replicas of the stack that the smaller one consists of.
    """
    (estimator, learners), (smaller, players) = before, after
    replicas = estimator.space.replicas
    smaller.load_state_dict(part_of_state(estimator.state_dict(), positions, replicas))
    for name, player in players.items():
        old, new = learners[name].optimizer, player.optimizer
        if old is None or new is None:
            continue
        for p, q in zip(_parameters(old), _parameters(new), strict=True):
            new.state[q] = {
                key: rows_of(value, positions, replicas) if value.dim() else value.clone()
                for key, value in old.state.get(p, {}).items()
            }
            if not new.state[q]:
                del new.state[q]


def put_back(smaller: Estimator, whole: Estimator, members: Sequence[int]) -> None:
    """Give the whole stack the state of some of its replicas; that of the others becomes 0."""
    replicas = whole.space.replicas
    state = {}
    for name, value in smaller.state_dict().items():
        rows = len(value) // len(members) * replicas
        state[name] = value.new_zeros(rows, *value.shape[1:])
        if value.numel():
            state[name].view(replicas, -1)[list(members)] = value.reshape(len(members), -1)
    whole.load_state_dict(state)
    for role in whole.networks:
        whole.stepped(str(role))


@torch.no_grad()
def diverged(estimator: Estimator) -> Tensor:  # [R] bool
    """Replicas with a parameter that is NaN, infinite, or so large that products of some are."""
    found = [torch.zeros_like(estimator.space.seeds, dtype=torch.bool)]
    for p in estimator.parameters():
        if p.numel():
            low, high = torch.aminmax(p.view(len(found[0]), -1), dim=-1)  # NaN where one is
            found.append(~((low > -LARGEST) & (high < LARGEST)))
    lost = torch.stack(found).any(0)
    return any_rank(lost) if spread() else lost


@torch.no_grad()
def calm(estimator: Estimator, optimizers: Sequence[ReplicaAdam], lost: Tensor) -> None:
    """Set parameters and moments of some replicas to 0, so that they can be computed with.

    Of buffers only what is NaN or infinite: what is so in every other replica too is a mark of
    something that is not there yet, and stays.

    Args:
        estimator: The networks.
        optimizers: Their optimisers, whose moments are set to 0.
        lost: ``[R]`` bool replicas.
    """
    replicas = len(lost)
    for p in estimator.parameters():
        p.view(replicas, -1)[lost] = 0.0
    for value in estimator.networks.buffers():
        if value.is_floating_point() and value.numel() and len(value) % replicas == 0:
            each = value.view(replicas, -1)
            known = each[~lost].isfinite().any(0)
            each[lost] = torch.where(~each[lost].isfinite() & known, 0.0, each[lost])
    for optimizer in optimizers:
        for moments in optimizer.state.values():
            for moment in moments.values():
                if moment.dim():
                    moment.view(replicas, -1)[lost] = 0.0
    for role in estimator.networks:
        estimator.stepped(str(role))


def _parameters(optimizer: ReplicaAdam) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
