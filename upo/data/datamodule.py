"""The base of all datamodules: read once, checked, reported, and handed on as a pair space."""

from abc import abstractmethod

import lightning as L  # noqa: N812 - the name that Lightning's own documentation uses

from upo.data.rating_data import RatingData, drop_overlap
from upo.errors import InputError


class RatingDataModule(L.LightningDataModule):
    """A dataset; subclasses implement ``read``.

    Batches need no loader: they are functions of the step number (see ``upo.core.sampling``), so
    what a datamodule gives to a stage is the pair space that they are drawn from.

    Args:
        name: Name of the dataset in results.
        label_threshold: Ratings from here on (or above it, if strict) are positive.
        label_strict: Compare with > instead of >=.
        drop_overlap: Remove test pairs that are also in train.
        k: Cutoff of the ranking metrics, at least 1.

    Raises:
        InputError: If ``k`` is below 1.
    """

    def __init__(
        self,
        name: str,
        label_threshold: float,
        label_strict: bool,
        drop_overlap: bool = False,
        k: int = 5,
    ) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"dataset.k must be at least 1, got {k}; try 5.")
        self.name, self.k = name, k
        self.label_threshold, self.label_strict = label_threshold, label_strict
        self.drops_overlap = drop_overlap
        self._data: RatingData | None = None

    @abstractmethod
    def read(self) -> RatingData:
        """Read and validate the raw files."""

    def setup(self, stage: str | None = None) -> None:
        """Read, once."""
        if self._data is None:
            data = self.read()
            self._data = drop_overlap(data) if self.drops_overlap else data

    @property
    def data(self) -> RatingData:
        """The dataset, read at first use."""
        self.setup()
        assert self._data is not None  # set by setup
        return self._data


class InMemoryDataModule(RatingDataModule):
    """Data that is there already, as a datamodule."""

    def __init__(self, data: RatingData, drop_overlap: bool = False, k: int = 5) -> None:
        rule = data.label_rule
        super().__init__(data.name, rule.threshold, rule.strict, drop_overlap, k)
        self._given = data

    def read(self) -> RatingData:
        return self._given
