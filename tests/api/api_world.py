"""Tables of a small world, and short fits, that the tests of the Python API share."""

import warnings
from pathlib import Path

import pandas as pd

import upo
from upo.data.world import SyntheticWorld

ROOT = Path(__file__).resolve().parents[2]
WORLD = SyntheticWorld(40, 30, density=0.2)
FEW = {
    "estimator.stages.propensity": {"epochs": 1, "steps": 3},
    "estimator.stages.game": {"epochs": 2, "steps": 3},
    "estimator.stages.debias.epochs": 3,
    "estimator.learners.prediction.optimizer.lr": 0.05,
    "trainer.accelerator": "cpu",
}


def frame(rows):
    """Ratings with text ids, in no order."""
    users = [f"u{u:02d}" for u in rows.users.tolist()]
    items = [f"i{i:02d}" for i in rows.items.tolist()]
    table = pd.DataFrame({"user": users, "item": items, "rating": rows.ratings.numpy()})
    return table.sample(frac=1.0, random_state=0)


TRAIN, TEST = frame(WORLD.log()), frame(WORLD.uniform_sample(8))


def short(train=TRAIN, **settings):
    with warnings.catch_warnings():
        # a few steps and 24 validation rows: what is tested here is not what the model is worth
        warnings.simplefilter("ignore", upo.UselessModelWarning)
        warnings.simplefilter("ignore", upo.UselessWeightsWarning)
        return upo.fit(train, progress=False, **{"overrides": FEW, **settings})


def places(fitted, pairs):
    return (
        [list(fitted.user_ids).index(u) for u in pairs.user],
        [list(fitted.item_ids).index(i) for i in pairs.item],
    )
