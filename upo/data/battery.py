"""The battery: logs that differ in kind, on which a default has to hold before it is one.

Real ones (Coat, MovieLens 100K split at random) and simulated ones, whose propensities and label
probabilities are known. All come with rows to test on; all are functions of ``world_seed``.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from upo.core.sampling import Permutation, stream_key
from upo.data.coat import read_coat
from upo.data.datamodule import RatingDataModule
from upo.data.download import MOVIELENS
from upo.data.exposure_plan import WorldPlan
from upo.data.exposure_world import ExposureWorld
from upo.data.interactions import LabelRule
from upo.data.movielens import read_movielens
from upo.data.rating_data import RatingData
from upo.data.world import SyntheticWorld
from upo.errors import InputError

TEST_ROWS = 30_000  # uniform pairs of a simulated log, or all pairs if there are fewer
TEST_SHARE = 0.2  # of MovieLens' rows, drawn at random: they test on the log's own kind of pairs

# users, items, density: worlds of `dataset=synthetic`
SYNTHETIC = {
    "tiny": (60, 40, 0.30),
    "small": (300, 300, 0.08),
    "medium": (2_000, 1_000, 0.08),
}
# users, items, density, positives in the log and in all pairs, and what else is odd
PLANS = {
    # songs that people chose to rate: most of the log is liked, most of the world is not
    "long_users": WorldPlan(15_000, 1_000, 0.02, 0.56, 0.24),
    # few items draw most of the ratings
    "heavy_tail": WorldPlan(20_000, 5_000, 0.003, 0.60, 0.40, popularity_sd=1.8, activity_sd=1.0),
    "positive_95": WorldPlan(1_500, 800, 0.05, 0.95, 0.88),
    "half_stars": WorldPlan(
        1_000,
        700,
        0.06,
        0.60,
        0.42,
        ratings=tuple(k / 2 for k in range(1, 11)),
        threshold=3.5,
    ),
    # taste only: no user or item is better than another; 25 ratings a user
    "taste": WorldPlan(
        500,
        500,
        0.05,
        0.60,
        0.50,
        user_sd=0.0,
        item_sd=0.0,
        taste_sd=2.5,
        dim=2,
        activity_sd=0.0,
        popularity_sd=0.0,
    ),
    "single_rating": WorldPlan(3_000, 500, 0.06, 0.60, 0.42, single_share=0.3),
    # KuaiRec's shape: short videos, of which few are watched twice over
    "kuairec_shape": WorldPlan(1_411, 3_327, 0.043, 0.05, 0.03, threshold=5.0),
}
THRESHOLDS = {"ml100k_3": 3.0, "ml100k_4": 4.0, "ml100k_5": 5.0}
LOGS = ("coat", *THRESHOLDS, *SYNTHETIC, *PLANS)


class BatteryDataModule(RatingDataModule):
    """One log of the battery; the keys are those of ``conf/dataset/battery.yaml``.

    Args:
        log: A name of `LOGS`.
        name: Name of the dataset in results.
        data_dir: Folder of the folders ``coat`` and ``ml-100k``; read by those logs alone.
        world_seed: Another seed is another world, or another split of MovieLens.
        drop_overlap: Remove test pairs that are also in train.
        k: Cutoff of the ranking metrics.

    Raises:
        InputError: If the log is unknown.
    """

    def __init__(
        self,
        log: str,
        *,
        name: str,
        data_dir: str,
        world_seed: int = 0,
        drop_overlap: bool = False,
        k: int = 5,
    ) -> None:
        if log not in LOGS:
            raise InputError(f"dataset.log={log} is unknown; known are {', '.join(LOGS)}.")
        threshold = label_threshold(log)
        super().__init__(name, threshold, False, drop_overlap, k)
        self._log, self._folder, self._seed = log, Path(data_dir), world_seed

    def read(self) -> RatingData:
        return read_battery(self._log, self._folder, self._seed, self.name)


def label_threshold(log: str) -> float:
    """From which rating on a log's labels are positive."""
    if log in PLANS:
        return PLANS[log].threshold
    return THRESHOLDS.get(log, 3.0)


def read_battery(
    log: str, folder: str | Path = "data", seed: int = 0, name: str | None = None
) -> RatingData:
    """A log of the battery, made or read.

    Args:
        log: A name of `LOGS`.
        folder: Folder of the folders ``coat`` and ``ml-100k``.
        seed: Of the world, or of MovieLens' split.
        name: What the dataset is called; the log's name if not given.

    Raises:
        InputError: If files of a real log are missing.
    """
    name = name or log
    if log == "coat":
        return replace(read_coat(Path(folder) / "coat"), name=name)
    if log in THRESHOLDS:
        return _split_movielens(Path(folder) / "ml-100k", LabelRule(THRESHOLDS[log]), seed, name)
    if log in SYNTHETIC:
        users, items, density = SYNTHETIC[log]
        world = SyntheticWorld(users, items, density=density, seed=seed)
        test = world.uniform_sample(min(items, -(-TEST_ROWS // users)))
        return RatingData(name, world.log(), test, world.label_rule, truth=world)
    drawn = ExposureWorld(PLANS[log], seed)
    return RatingData(
        name, drawn.log(), drawn.uniform_sample(TEST_ROWS), drawn.label_rule, truth=drawn
    )


def _split_movielens(folder: Path, rule: LabelRule, seed: int, name: str) -> RatingData:
    """The log, of which a random fifth tests: the test pairs are as self-selected as the others."""
    if not (folder / "u.data").is_file():
        raise InputError(
            f"{folder / 'u.data'} is missing; get MovieLens 100K from {MOVIELENS.page}, or set "
            f"dataset.data_dir to the folder that holds {folder.name}."
        )
    rows = read_movielens(folder).interactions
    place = Permutation(len(rows))(
        torch.arange(len(rows)), stream_key(torch.tensor([seed]), "battery", "split")
    )
    test = place < round(TEST_SHARE * len(rows))
    return RatingData(name, rows.where(~test), rows.where(test), rule)
