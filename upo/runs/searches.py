"""A search of one estimator as a whole: its space, its study on the disk, its file of values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from upo.runs.compose import choices, chosen, composed, search_path
from upo.runs.experiment import Experiment
from upo.runs.search import Budget, Found, open_study, searched
from upo.runs.search_space import Space, space_of
from upo.runs.tuned import BUDGET, NOT_TUNED, fingerprint, place, write

QUIET = ["logger=none", "progress=false", "figures=false"]


def search_named(
    name: str, overrides: Sequence[str], trials: int | None = None, batch: int | None = None
) -> tuple[DictConfig, Budget]:
    """A file of ``conf/search`` and its budget, with other counts where they are given.

    Raises:
        InputError: If there is no such file, or a count is out of range.
    """
    chosen("search", name, choices("search", overrides))
    found = composed(search_path(overrides), f"search/{name}").search
    counts = {"trials": trials, "batch": batch}
    given = {key: found[key] if count is None else count for key, count in counts.items()}
    return found, Budget(**given, seeds=found.seeds)


class Search:
    """What is searched, and on what, before it begins.

    Args:
        overrides: Settings of every trial, an estimator among them; they are not searched.
        wanted: A file of ``conf/search``.
        budget: How many trials.

    Raises:
        InputError: If nothing is left to search.
    """

    def __init__(self, overrides: Sequence[str], wanted: DictConfig, budget: Budget) -> None:
        self.budget = budget
        self.base = composed([*overrides, *QUIET, NOT_TUNED])
        keys = [override.split("=", 1)[0].lstrip("+") for override in overrides]
        self.space: Space = space_of(self.base, wanted, keys)
        self.experiment = Experiment(self.base, progress=False)
        self.data = self.experiment.datamodule.data

    @property
    def place(self) -> Path:
        """Where the values lie below a folder of tuned ones."""
        return place(self.base, fingerprint(self.data))

    def run(self, path: Path, kept: Path, *, progress: bool = True) -> Found:
        """Search, or go on with a search that was killed, and write the winner.

        Args:
            path: Gets the values.
            kept: The study; a table of its trials is written beside it.
            progress: Draw a bar.
        """
        budget, base, data = self.budget, self.base, self.data
        study = open_study(kept, base, self.space, budget, data)
        name = str(base.estimator.name)
        found = searched(self.experiment, study, self.space, budget, label=name, progress=progress)
        head = (
            f"Written by upo tune: best of {budget}, protocol={base.protocol.name}, "
            f"selection value {found.value:.5f}."
        )
        write(path, found.overrides, [head, *found.remarks], data, cost_of(found, budget))
        found.trials.to_csv(kept.with_suffix(".csv"), index=False)
        return found


def cost_of(found: Found, budget: Budget) -> dict[str, Any]:
    """What a search cost and said, as a run's ``budget`` has it."""
    return {"trials": len(found.trials), "seeds": budget.seeds, "notes": found.remarks}


def with_values(config: DictConfig, found: Found, budget: Budget) -> DictConfig:
    """A configuration with the values that a search has found, and what it cost."""
    config = config.copy()
    for key, value in found.overrides.items():
        OmegaConf.update(config, key, value)
    OmegaConf.update(config, BUDGET, cost_of(found, budget))
    return config
