"""Pairs with their propensities, as ``upo.audit`` takes them."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from upo.errors import InputError
from upo.fitted.answers import Answers
from upo.models.calibration import Cells
from upo.pairs import PairSpace
from upo.runs.crossfit import OutOfFold, log_and_others
from upo.tables.frames import to_arrow
from upo.tables.ids import Places
from upo.tables.numbering import Ids, shown

LARGEST = 1 - 1e-7  # a saturated propensity stays inside (0, 1)


def asked_pairs(answers: Answers, unobserved: int, seed: int) -> tuple[Cells, Tensor]:
    """The log and drawn others, and the propensities ``[N]`` that the model answers for them.

    Args:
        answers: The model's.
        unobserved: Most pairs drawn outside the log.
        seed: Of the sample.
    """
    cells = answers.sample_pairs(unobserved, seed)
    return cells, answers.values("propensity", cells.users, cells.items).mean(0)


def unseen_pairs(
    space: PairSpace, found: OutOfFold, unobserved: int, seed: int
) -> tuple[Cells, Tensor]:
    """The same of propensities that were found out of fold, for as many others as were kept."""
    kept = len(found.others)
    drawn = torch.randperm(kept, generator=torch.Generator().manual_seed(seed))[:unobserved]
    p = found.propensity.double().mean(0)
    of_log, of_others = torch.split(p, [space.n_observed, kept])
    return log_and_others(space, found.others[drawn]), torch.cat([of_log, of_others[drawn]])


def pair_table(
    cells: Cells, p: Tensor, columns: tuple[str, str], user_ids: Ids, item_ids: Ids
) -> pd.DataFrame:
    """What either of them returns as a table with ids."""
    return pd.DataFrame(
        {
            columns[0]: user_ids[cells.users.numpy()],
            columns[1]: item_ids[cells.items.numpy()],
            "observed": cells.observed.numpy().astype(np.int8),
            "propensity": p.clamp(torch.finfo(torch.float32).tiny, LARGEST).numpy(),
            "weight": cells.weight.float().numpy(),
        }
    )


def with_columns(pairs: pd.DataFrame, key: str, features: Any) -> pd.DataFrame:
    """A table of pairs with the columns that a table of features has for each user, or item.

    Args:
        pairs: Any table with the column ``key``.
        key: Name of the column of ids.
        features: A table with that column; others are put beside, and named ``NAME of KEY`` where
            ``pairs`` has a column of that name.

    Raises:
        InputError: If it has not one row for each id.
    """
    source = f"the features by {key}"
    told = to_arrow(features, None, source)
    if key not in told.column_names:
        raise InputError(
            f"{source} must have a column {key}, and have only {', '.join(told.column_names)}; "
            "rename one."
        )
    codes, values = pd.factorize(pairs[key])
    ids = np.asarray(values)
    place = Places(ids).find(told[key]).numpy()
    counts = np.bincount(place[place >= 0], minlength=len(ids))
    if (counts != 1).any():
        which = int(np.argmax(counts != 1))
        said = "no row" if counts[which] == 0 else "more than one row"
        raise InputError(f"{source} have {said} for {key} {shown(ids[which])}; give one for each.")
    rows = np.empty(len(ids), dtype=np.int64)
    rows[place[place >= 0]] = np.flatnonzero(place >= 0)
    columns: pd.DataFrame = told.drop_columns([key]).to_pandas()
    columns = columns.rename(columns={x: f"{x} of {key}" for x in columns if x in pairs})
    return pd.concat([pairs, columns.iloc[rows[codes]].set_axis(pairs.index)], axis=1)
