"""A log of which some cells of D, observed ones and others, are kept from all that learns."""

from dataclasses import dataclass, replace

from torch import Tensor

from upo.data.rating_data import RatingData
from upo.data.semisynthetic_world import TrainCells
from upo.errors import InputError

MOST = 0.5


@dataclass(frozen=True, eq=False)
class Withheld:
    """The cells that are kept back.

    Attributes:
        cells: The others, which are D; from ``len(cells)`` on their numbers are those kept back.
        keys: ``[M]`` sorted keys of the observed ones among those kept back.
    """

    cells: TrainCells
    keys: Tensor


def withhold(data: RatingData, share: float) -> tuple[RatingData, Withheld | None]:
    """The same data without a share of the cells of users x items.

    Which cells is a function of the size of the world alone, the same for every row and seed, so
    rows are compared on the same cells. Test pairs stay as they are.

    Args:
        data: A real log.
        share: Of the cells, in [0, 0.5]; 0 keeps none back.

    Raises:
        InputError: If the share is out of range, the world is simulated, or no row is left.
    """
    if isinstance(share, bool) or not 0 <= share <= MOST:
        raise InputError(f"propensity.withhold must lie in [0, {MOST}], got {share!r}; try 0.1.")
    if not share:
        return data, None
    if data.truth is not None or data.cells is not None:
        raise InputError(
            f"propensity.withhold keeps cells of a real log back, and {data.name} is simulated, so "
            "its propensities are measured against the true ones; set it to 0."
        )
    train = data.train
    cells = TrainCells(train.n_users, train.n_items, 1 - share, 0)
    if train.n_users < 2 or not 0 < int(cells.contain(train.keys).sum()) < len(train):
        raise InputError(
            f"propensity.withhold={share:g} leaves nothing to train on or to measure on in a log "
            f"of {len(train)} ratings; set it to 0."
        )
    inside = cells.contain(train.keys)
    kept = replace(data, train=train.where(inside), cells=cells)
    return kept, Withheld(cells, train.keys[~inside])
