"""Trained networks go on with rows that came later, and grow by users and items that are new."""

from collections.abc import Sequence

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from torch import Tensor

from upo.core.memory import freed_memory_kept
from upo.core.shards import sharded
from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.pairs import PairSpace
from upo.runs.assembly import build_estimator, build_stage
from upo.runs.config import scheduled
from upo.runs.fitting import StageFitting
from upo.training.settings import trial_steps
from upo.training.tables import shard_of
from upo.training.trainer import companions, settle


@companions()
def updated(
    config: DictConfig, space: PairSpace, trained: Estimator, epochs: int, *, progress: bool
) -> Estimator:
    """Every stage once more from where the networks are, for so many epochs each.

    Nothing is held out, so nothing is selected: the last epoch of each stage is kept. Moments of
    the optimisers start at 0.

    Args:
        config: Composed configuration of the run that trained the networks.
        space: The pairs of the old log and of the new one, whose rows are the training rows.
        trained: The networks, on a space whose users and items come first in the new one.
        epochs: Of each stage, at least 1.
        progress: Draw progress bars.

    Raises:
        InputError: If the networks do not fit the configuration, or a replica diverges.
    """
    settle(config.trainer)
    config = config.copy()
    with open_dict(config):
        config.resume = None
        for name in scheduled(config.estimator):
            config.estimator.stages[name].update(epochs=epochs, patience=0, select=False)
    protocol = instantiate(config.protocol)
    fitting = StageFitting(
        config, None, progress=progress, trial_steps=trial_steps(config.trainer), limit=None
    )
    lengths = torch.full((space.replicas,), epochs)
    # of one process, whose rows start as those of any number
    with sharded(shard_of(config.trainer)), freed_memory_kept():
        fresh = build_estimator(config.estimator, space).to(trained.dtype)
        take_over(fresh, trained)
        for name in scheduled(config.estimator):
            of_prediction = config.estimator.stages[name].module == "debiasing"
            fitting.fit(
                build_stage(
                    name,
                    config.estimator,
                    fresh,
                    protocol,
                    lengths=lengths if of_prediction else None,
                )
            )
    if fitting.failures:
        raise InputError(f"update: {next(iter(fitting.failures.values()))}; try fewer epochs.")
    return fresh.eval().to(torch.device("cpu"))


def take_over(fresh: Estimator, trained: Estimator) -> None:
    """Give networks the state of smaller ones; rows of new users and items start as they are.

    Args:
        fresh: Networks as a fresh fit would start them.
        trained: The same networks with fewer users, or items; theirs come first.

    Raises:
        InputError: If they are other networks.
    """
    replicas, state, old = fresh.space.replicas, fresh.state_dict(), trained.state_dict()
    sizes = _sizes(trained.space, fresh.space)
    if set(state) != set(old):
        odd = min(set(state) ^ set(old))
        raise InputError(f"The model has other networks than its settings describe, at {odd!r}.")
    for name, value in old.items():
        new = state[name]
        rows = (len(value) // replicas, len(new) // replicas) if value.dim() and new.dim() else None
        if name.startswith("bins.") or value.shape == new.shape:
            state[name] = value | new if value.dtype == torch.bool else value
        elif rows in sizes and value.shape[1:] == new.shape[1:]:
            state[name] = _grown(value, new, replicas)
        else:
            raise InputError(
                f"The model's {name!r} depends on all users or items and cannot grow with them; "
                "fit again on both logs."
            )
    fresh.load_state_dict(state)
    for role in fresh.networks:
        fresh.stepped(str(role))


def _sizes(before: PairSpace, after: PairSpace) -> Sequence[tuple[int, int]]:
    return (before.n_users, after.n_users), (before.n_items, after.n_items)


def _grown(value: Tensor, new: Tensor, replicas: int) -> Tensor:
    """The rows of before in the place of the first ones of each replica."""
    of_each = new.clone().view(replicas, -1, *new.shape[1:])
    old = value.view(replicas, -1, *value.shape[1:])
    first = of_each[:, : old.shape[1]]
    first.copy_(old | first if value.dtype == torch.bool else old)
    return of_each.view_as(new)
