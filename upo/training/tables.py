"""``trainer.tables``: whole on every process, or spread over them by rows."""

from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import DictConfig

from upo.core.shards import Shard
from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.training.settings import device_count, place, tables_spread
from upo.training.stage import StageModule


def shard_of(trainer: Mapping[Any, Any] | DictConfig) -> Shard | None:
    """This process's part of the tables; None where each has them whole.

    Processes have not met when tables are made, so their number is that of the settings.
    """
    if not tables_spread(trainer):
        return None
    nodes = int(trainer.get("num_nodes", 1))
    return Shard(place(trainer), (device_count(trainer.get("devices", 1)) or 1) * nodes)


def check_spread(estimator: Estimator, stages: Iterable[StageModule]) -> None:
    """Refuse what needs whole tables, before anything is trained.

    Args:
        estimator: The networks.
        stages: With their players.

    Raises:
        InputError: If a network or a player does.
    """
    learners = [learner for stage in stages for learner in stage.learners.values()]
    for part in [*estimator.networks.values(), *learners]:
        why = getattr(part, "whole_tables", None)
        if why is not None:
            raise InputError(
                f"trainer.tables=sharded spreads the rows of tables over processes, and "
                f"{type(part).__name__} {why}; use trainer.tables=replicated, or another "
                "estimator."
            )
