"""``refit=true``: after selection, the final model is trained on all rows, held-out ones included.

Propensities have read which pairs are in the log, held-out rows among them, so they stay. What is
trained beside or after them starts anew, as in a run without held-out rows, and takes as many steps
as the epoch that was selected had taken; nothing is left to select by.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from upo.errors import InputError
from upo.models.estimator import Estimator
from upo.runs.fitting import StageResult
from upo.training.stage import StageModule, StagePlan


def check_refit(estimator: Estimator, protocol: str) -> None:
    """Refuse where nothing is held out.

    Raises:
        InputError: If the protocol holds no row of the log out.
    """
    if not estimator.space.n_held:
        raise InputError(
            f"refit=true trains on the held-out rows too, and protocol={protocol} holds none out; "
            "leave it out, or use protocol=holdout or time."
        )


def start(fresh: Estimator, trained: Estimator, stages: Sequence[StageModule]) -> None:
    """Give untrained networks the state of all that the stages do not train.

    Args:
        fresh: Untrained networks on the whole log.
        trained: What the run selected.
        stages: Those that are trained again.
    """
    roles = {learner.network for stage in stages for learner in stage.learners.values()}
    again = tuple(f"networks.{role}." for role in roles)
    state = fresh.state_dict()
    for name, value in trained.state_dict().items():
        if not name.startswith(again):
            state[name] = value
    fresh.load_state_dict(state)
    for role in fresh.networks:
        fresh.stepped(str(role))


def plan_of(stage: StageModule, lengths: Tensor) -> StagePlan:
    """As many steps of the same batches as the selected epochs had."""
    fixed = stage.plan
    return StagePlan(
        epochs=int(lengths.max()),
        observed_batch=fixed.observed_batch,
        pair_batch=fixed.pair_batch,
        patience=1,
        steps=stage.steps_per_epoch,
    )


def lengths_of(result: StageResult, healthy: Sequence[int]) -> Tensor:
    """``[R]`` epochs until the selected one of each healthy replica; all where none was."""
    if result.best_epoch is None:
        return torch.full((len(healthy),), len(result.history.epochs))
    return result.best_epoch[list(healthy)] + 1
