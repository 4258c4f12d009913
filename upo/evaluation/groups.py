"""Test figures of users and of items by how active they are in the log."""

from typing import NamedTuple

import torch
from torch import Tensor

from upo.evaluation.mar import MarSet
from upo.models.estimator import Estimator

NAMES = ("least active", "middle", "most active")
MOST_ROWS = 2**23  # test rows x replicas: of so many users as have about that many


class Group(NamedTuple):
    """A third of the test users or items.

    Attributes:
        of: ``users`` or ``items``.
        name: One of ``NAMES``.
        low: Fewest rows in the log of a member.
        high: Most rows.
        members: How many there are.
        rows: Their test rows.
        metrics: Name -> ``[R]``, as of the whole test set.
    """

    of: str
    name: str
    low: int
    high: int
    members: int
    rows: int
    metrics: dict[str, Tensor]


@torch.no_grad()
def by_activity(estimator: Estimator, mar: MarSet, include: Tensor | None = None) -> list[Group]:
    """The test metrics within thirds of the users, and of the items, by their rows in the log.

    Members with the same number of rows are in the same group, so thirds may differ in size, and
    where all have as many there is one. A test set of more than 2^23 rows x replicas is read for a
    part of its users, spread evenly over their ids.

    Args:
        estimator: The networks.
        mar: The test rows.
        include: ``[R, N]`` bool rows that each replica reads; all by default.
    """
    space = estimator.space
    users, index = torch.unique(mar.users, return_inverse=True)
    most = max(1, MOST_ROWS // max(1, len(mar) * space.replicas // len(users)))
    drawn = min(len(users), most)
    kept = index * drawn % len(users) < drawn
    if drawn < len(users):
        mar, include = mar.part(kept), None if include is None else include[:, kept]
    found = []
    sides = (
        ("users", mar.users, torch.div(space.keys, space.n_items, rounding_mode="floor")),
        ("items", mar.items, space.keys % space.n_items),
    )
    for of, ids, logged in sides:
        members, which = torch.unique(ids, return_inverse=True)
        size = space.n_users if of == "users" else space.n_items
        activity = torch.bincount(logged, minlength=size)[members]
        third = thirds(activity)
        for number, name in enumerate(NAMES):
            chosen = third == number
            if not bool(chosen.any()):
                continue
            rows = chosen[which]
            mask = None if include is None else include[:, rows]
            counts = activity[chosen]
            found.append(
                Group(
                    of,
                    name,
                    int(counts.min()),
                    int(counts.max()),
                    int(chosen.sum()),
                    int(rows.sum()),
                    mar.part(rows).measure(estimator, mask),
                )
            )
    return found


def thirds(activity: Tensor) -> Tensor:  # [M] -> [M] int64 in 0 .. 2
    """The third of each member; equal ones share one.

    >>> thirds(torch.tensor([5, 1, 3, 3, 9, 7])).tolist()
    [1, 0, 0, 0, 2, 2]
    """
    ordered = activity.sort().values
    cuts = ordered[[(len(ordered) - 1) // 3, 2 * (len(ordered) - 1) // 3]]
    return (activity > cuts[0]).long() + (activity > cuts[1]).long()
