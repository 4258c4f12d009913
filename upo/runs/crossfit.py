"""What copies of a learned propensity say of cells of D that they did not see.

D is cut into folds by each replica's order of its cells, which is arithmetic: nothing is listed. A
copy of the propensity is trained for each fold on the other cells, as the propensity itself was on
all, and says the logits of its fold. They are the cross-fitted propensities, or the map from them
to o calibrates the propensity's own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from upo.errors import InputError
from upo.evaluation.mar import blocks
from upo.models.calibration import Calibration, Cells
from upo.models.estimator import Estimator
from upo.pairs import Pairs, PairSpace
from upo.training.stage import StageModule

OTHERS = 4  # unobserved cells drawn for each observed one: 12 % more noise than all would leave
LEAST = 2**20  # cells drawn at least, where D has as many
KEPT = 2**17  # unobserved ones of which is kept what copies say of them

Train = Callable[[StageModule], object]
Build = Callable[[PairSpace], tuple[Estimator, list[StageModule]]]


class OutOfFold(NamedTuple):
    """Calibrated propensities of pairs that neither the copy nor the map behind them has seen.

    Attributes:
        others: ``[M]`` keys of unobserved pairs, evenly drawn.
        propensity: ``[R, N + M]`` float32 in [0, 1]: of the rows of the log, then of these.
    """

    others: Tensor
    propensity: Tensor


def observed_cells(space: PairSpace) -> Cells:
    """The rows of the log."""
    return log_and_others(space, space.keys[:0])


def log_and_others(space: PairSpace, others: Tensor) -> Cells:
    """The rows of the log, then unobserved cells that stand for all that there are.

    Args:
        space: The pairs.
        others: ``[M]`` keys, evenly drawn.
    """
    keys = torch.cat([space.keys.to(others.device), others])
    users = torch.div(keys, space.n_items, rounding_mode="floor")
    observed = torch.arange(len(keys), device=keys.device) < space.n_observed
    share = (space.n_pairs - space.n_observed) / max(1, len(others))
    weight = torch.where(observed, 1.0, share).double()
    return Cells(users, keys - users * space.n_items, observed, weight)


def sampled_cells(space: PairSpace) -> Cells:
    """Every observed cell and a uniform sample of the others, or all of them where D is small."""
    size = min(space.n_pairs, max(OTHERS * space.n_observed, LEAST))
    stream = space.shared_stream("calibration")
    drawn = []
    for lo, hi in blocks(0, size, 1):
        pairs = space.pairs(stream.rows(0, 1, lo, hi, size)[:, 0], hi - lo)
        drawn.append((pairs.users * space.n_items + pairs.items)[~pairs.observed])
    return log_and_others(space, torch.cat(drawn))


@torch.no_grad()
def logits(estimator: Estimator, role: str, cells: Cells) -> Tensor:  # [R, M]
    """Logits of a network at cells, block by block."""
    space = estimator.space
    parts = []
    for lo, hi in blocks(0, len(cells.users), space.replicas):
        users, items = (x[lo:hi].expand(space.replicas, -1) for x in (cells.users, cells.items))
        parts.append(estimator.logit(role, Pairs(users, items, space, hi - lo)))
    return torch.cat(parts, dim=1)


def calibrate(estimator: Estimator, folds: int, build: Build, train: Train) -> OutOfFold:
    """Fit the calibration of an estimator whose propensity is trained.

    Args:
        estimator: The networks, a ``Calibration`` among them.
        folds: Parts of D, at least 2.
        build: Makes an untrained copy on a pair space, and the stages of its propensity.
        train: Trains a stage.

    Returns:
        What is said of the log and of other pairs out of fold, on the CPU.

    Raises:
        InputError: If there are not as many cells as folds.
    """
    network = estimator.networks["calibration"]
    assert isinstance(network, Calibration)
    space = estimator.space
    if space.n_pairs < folds or space.n_observed in (0, space.n_pairs):
        raise InputError(
            f"propensity.calibrate needs observed and unobserved pairs in {folds} folds of D, and "
            f"D has {space.n_pairs} pairs, {space.n_observed} of them observed; set it to none."
        )
    cells = sampled_cells(space)
    p = _calibrate(network, estimator, cells, folds, build, train)
    last = space.n_observed + KEPT
    others = (cells.users * space.n_items + cells.items)[space.n_observed : last]
    return OutOfFold(others.cpu().clone(), p[:, :last].clone())


def cross_fitted(estimator: Estimator, folds: int, build: Build, train: Train) -> Tensor:
    """Propensities of the rows of the log, each by copies that did not see its part of D.

    Of a calibrated propensity they are what a map, fitted to such logits of other parts, makes of
    them.

    Args:
        estimator: The networks, untrained.
        folds: Parts of D, at least 2.
        build: As in ``calibrate``.
        train: Trains a stage.

    Returns:
        ``[R, N]`` in [0, 1], in the order of the log's keys.
    """
    space = estimator.space
    if "calibration" not in estimator.networks:
        return torch.sigmoid(
            _out_of_fold(estimator, "propensity", observed_cells(space), folds, build, train)[0]
        )
    network = estimator.networks["calibration"]
    assert isinstance(network, Calibration)
    p = _calibrate(network, estimator, sampled_cells(space), folds, build, train)
    return p[:, : space.n_observed]


def _calibrate(
    network: Calibration,
    estimator: Estimator,
    cells: Cells,
    folds: int,
    build: Build,
    train: Train,
) -> Tensor:
    """Fit the map of every replica; ``[R, M]`` propensities of the cells by maps of the others."""
    z, fold = _out_of_fold(estimator, network.sources[0], cells, folds, build, train)
    replicas = range(estimator.space.replicas)
    p = torch.stack([network.fit(r, cells, z[r], fold[r]) for r in replicas])
    estimator.stepped("calibration")
    return p


def _out_of_fold(
    estimator: Estimator, role: str, cells: Cells, folds: int, build: Build, train: Train
) -> tuple[Tensor, Tensor]:
    """``[R, M]`` logits of cells by copies that did not see them, and the fold of each cell."""
    space = estimator.space
    keys = cells.users * space.n_items + cells.items
    fold = space.fold(keys.expand(space.replicas, -1), folds)
    z = torch.empty(fold.shape, device=fold.device)
    for number in range(folds):
        copy, stages = build(space.without_fold(number, folds).to(fold.device))
        for stage in stages:
            train(stage)
        copy.to(fold.device)
        z = torch.where(fold == number, logits(copy, role, cells), z)
    return z, fold


def check_schedule(estimator: Estimator, debiasing: Sequence[StageModule], folds: int) -> None:
    """Refuse a propensity that has no stages of its own.

    Args:
        estimator: The networks.
        debiasing: Stages that train the prediction.
        folds: Parts of D.

    Raises:
        InputError: If the propensity is learned beside the prediction, is made of weights, or the
            number of folds is no number of at least 2.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise InputError(f"propensity.folds must be a whole number of at least 2, got {folds!r}.")
    roles = estimator.behind(estimator.calibrated("propensity"))
    beside = any(
        learner.network in roles and learner.optimizer is not None
        for stage in debiasing
        for learner in stage.learners.values()
    )
    derived = hasattr(estimator.weighting, "propensity")
    if beside or derived:
        what = (
            "learned beside it"
            if beside
            else "derived from another or from weights (kernel, tilted and raked rows)"
        )
        raise InputError(
            "A propensity that stands alone or is calibrated (propensity.calibrate) is learned "
            f"before the prediction, and this one is {what}; choose another propensity, such as "
            "upo or additive."
        )
