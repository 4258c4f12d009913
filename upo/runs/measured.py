"""What is measured of a trained estimator: its columns of results, its figures, its users."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from omegaconf import DictConfig
from torch import Tensor

from upo.data.rating_data import RatingData
from upo.data.withheld import Withheld
from upo.evaluation.catalogue import catalogue_recall
from upo.evaluation.constant import compare, constant_columns
from upo.evaluation.diagnostics import Diagnosis, Diagnostics, parse_definitions
from upo.evaluation.groups import Group, by_activity
from upo.evaluation.held_out import against_truth, held_columns
from upo.evaluation.mar import MarSet
from upo.evaluation.overlap import weight_columns
from upo.evaluation.protocols import Protocol
from upo.metrics.names import CATALOGUE
from upo.models.estimator import Estimator
from upo.training.stage import StageModule


@dataclass
class Measured:
    """What was measured; all of it tensors, so that it moves as a whole.

    Attributes:
        values: Column -> ``[R]`` float64.
        beside: Columns that came later, and stand behind the others.
        users: Test users ``[U]`` with what each adds to the test metrics, ``[4, R, U]``.
        groups: Test metrics by activity.
        diagnosis: What was found over D; None without a propensity.
    """

    values: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Tensor] = field(default_factory=dict)
    users: tuple[Tensor, Tensor] | None = None
    groups: list[Group] = field(default_factory=list)
    diagnosis: Diagnosis | None = None


@torch.no_grad()
def measured(
    estimator: Estimator,
    config: DictConfig,
    data: RatingData,
    mar: MarSet,
    protocol: Protocol,
    stages: Sequence[StageModule],
    withheld: Withheld | None = None,
    *,
    selected: Estimator | None = None,
) -> Measured:
    """Read the test set and measure the propensities.

    Args:
        estimator: The trained networks.
        config: Of the run.
        data: The dataset.
        mar: Its test sample.
        protocol: Says which test rows are read.
        stages: That trained the networks.
        withheld: Cells that were kept back, which judge the propensities.
        selected: The networks before they were trained on the validation rows, too, if they were:
            only these are asked for them.
    """
    found, space = Measured(), estimator.space
    if len(mar):
        tested = protocol.tested(estimator)
        found.values = mar.measure(estimator, tested) | constant_columns(mar, space, tested)
        found.users = mar.by_user(estimator, tested)
        found.groups = by_activity(estimator, mar, tested)
        found.beside[f"{CATALOGUE}@{mar.k}"] = catalogue_recall(estimator, mar, tested)
    judged = selected or estimator
    found.values |= compare(lambda: protocol.validation_rows(judged), judged.space).columns
    if estimator.has_propensity:
        found.values |= weight_columns(estimator)
        diagnoses = [
            Diagnostics(data, mar, definition=definition).measure(estimator)
            for definition in parse_definitions(config.diagnostics)
        ]
        found.diagnosis = diagnoses[0]
        for each in diagnoses:
            found.values |= each.columns
        if data.truth is not None:
            held = against_truth(diagnoses)
        elif withheld or (space.n_held_cells and not fitted_to_all(estimator, stages)):
            features = (data.train.user_features, data.train.item_features)
            held = held_columns(estimator, features, withheld=withheld)
        else:
            held = {}
        found.beside = held | found.beside
    return found


def fitted_to_all(estimator: Estimator, stages: Sequence[StageModule]) -> bool:
    """Whether some stage fits a network behind the propensity to all of D, or to all of O."""
    roles = estimator.weighting.roles(estimator)
    return any(
        learner.network in roles and learner.optimizer is not None and not stage.plan.select
        for stage in stages
        for learner in stage.learners.values()
    )
