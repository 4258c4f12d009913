"""A small log with ids of its own, as a Dataset of LensKit, and settings of short fits."""

import numpy as np
import pandas as pd
from lenskit.data import from_interactions_df

from upo.data.world import SyntheticWorld

FIT = {
    "estimator.stages.propensity": {"epochs": 1, "steps": 2},
    "estimator.stages.refine": {"epochs": 1, "steps": 2},
    "trainer.accelerator": "cpu",
}
IPS = {"estimator": "ips", "overrides": {**FIT, "estimator.stages.debias.epochs": 2}}
NAIVE = {"overrides": {"estimator.stages.debias.epochs": 1, "trainer.accelerator": "cpu"}}
ADDITIVE = {"kind": "additive", "overrides": FIT}
ROWS = SyntheticWorld(60, 110, density=0.2).log()
# numbers of its own, far from places
LOG = pd.DataFrame(
    {
        "user_id": 1000 + 7 * ROWS.users.numpy(),
        "item_id": 50 + 3 * ROWS.items.numpy(),
        "rating": ROWS.ratings.numpy(),
        "timestamp": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(ROWS.users)), "h"),
    }
)
TEXT = LOG.assign(
    user_id="u" + LOG.user_id.astype(str), item_id="i" + LOG.item_id.astype(str)
).drop(columns="timestamp")
COLUMNS = {"user": "user_id", "item": "item_id"}


def dataset(frame=LOG):
    return from_interactions_df(frame.copy())
