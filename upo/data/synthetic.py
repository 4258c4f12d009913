"""The embedded dataset: a log and a uniform sample of the simulated world, with its truth."""

from __future__ import annotations

from functools import partial

from upo.data.datamodule import RatingDataModule
from upo.data.interactions import LabelRule
from upo.data.rating_data import RatingData
from upo.data.world import SyntheticWorld

__all__ = ["SyntheticDataModule", "SyntheticWorld", "make_synthetic"]


def make_synthetic(world: SyntheticWorld, test_per_user: int = 16) -> RatingData:
    """The log, a uniform test sample, and the world itself as the truth."""
    return RatingData(
        name="synthetic",
        train=world.log(),
        test=world.uniform_sample(test_per_user),
        label_rule=world.label_rule,
        truth=world,
    )


class SyntheticDataModule(RatingDataModule):
    """The embedded world as a datamodule; the keys are those of `conf/dataset/synthetic.yaml`."""

    def __init__(
        self,
        n_users: int = 300,
        n_items: int = 300,
        *,
        name: str = "synthetic",
        label_threshold: float = 3.0,
        label_strict: bool = False,
        drop_overlap: bool = False,
        k: int = 5,
        dim: int = 4,
        world_seed: int = 0,
        density: float = 0.08,
        test_per_user: int = 16,
        rating_bias: float = 0.7,
        popularity_bias: float = 0.6,
        activity_bias: float = 0.6,
        feature_noise: float = 0.5,
    ) -> None:
        super().__init__(name, label_threshold, label_strict, drop_overlap, k)
        self._test_per_user = test_per_user
        self._build_world = partial(
            SyntheticWorld,
            n_users,
            n_items,
            dim=dim,
            seed=world_seed,
            density=density,
            label_rule=LabelRule(label_threshold, label_strict),
            rating_bias=rating_bias,
            popularity_bias=popularity_bias,
            activity_bias=activity_bias,
            feature_noise=feature_noise,
        )

    def read(self) -> RatingData:
        return make_synthetic(self._build_world(), self._test_per_user)
