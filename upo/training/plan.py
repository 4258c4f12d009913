"""How long a stage runs and what a step sees, as numbers or by rules from the size of the log."""

import math
from dataclasses import dataclass

from upo.errors import InputError
from upo.pairs import BatchSampler, PairSpace

AUTO = "auto"
LAST = "last"
SMALLEST, LARGEST = 64, 65536  # batches of O
PAIRS = 4096  # fewest pairs of D in a step of a propensity, whose bins need them
PASSES = 16  # pairs of D in an epoch of a propensity, as a multiple of |O|
LENGTH, EPOCHS = 2400, (40, 400)  # steps in all; epochs at least and at most
WAIT, PATIENCE = 120, (3, 20)  # steps without improvement; epochs at least and at most
# With rows of O: factors first fit noise, and the penalty takes them back some hundred steps later.
ROWS_WAIT, ROWS_PATIENCE = 1200, (3, 100)


@dataclass(frozen=True)
class StagePlan:
    """How long a stage runs and what a step sees; ``auto`` leaves a number to a rule.

    Attributes:
        epochs: Most epochs, at least 1; a validation follows each.
        observed_batch: Rows of O in a step.
        pair_batch: Pairs of D in a step.
        patience: Epochs without improvement after which a replica has stopped; 0 for never.
        steps: Steps in an epoch; None for one pass over O (or over D where O is not drawn).
        select: For stages of a propensity: true holds a tenth of the cells of D out, keeps each
            replica's epoch of the least cross-entropy on them, the start among them, and stops by
            patience; ``last`` holds them out and measures, but keeps the last epoch; false trains
            on all of D.
        pairs_per_row: Pairs of D for each row of O where ``pair_batch`` is auto.

    Raises:
        InputError: If a value is out of range or unknown.
    """

    epochs: int | str
    observed_batch: int | str = 0
    pair_batch: int | str = 0
    patience: int | str = 0
    steps: int | str | None = None
    select: bool | str = False
    pairs_per_row: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("observed_batch", 0),
            ("pair_batch", 0),
            ("patience", 0),
            ("steps", 1),
        ):
            value = getattr(self, name)
            if value == AUTO or (name == "steps" and value is None):
                continue
            if isinstance(value, str) or value < least:
                raise InputError(
                    f"A stage's {name} must be at least {least}, or auto, got {value!r}; fix "
                    "estimator.stages."
                )
        if self.select not in (True, False, LAST):
            raise InputError(
                f"A stage's select must be true, false or last, got {self.select!r}; fix "
                "estimator.stages."
            )
        if not 0 < self.pairs_per_row < math.inf:
            raise InputError(
                f"A stage's pairs_per_row must be above 0, got {self.pairs_per_row}; fix "
                "estimator.stages."
            )
        if not self.observed_batch and not self.pair_batch:
            raise InputError("A stage needs observed_batch or pair_batch above 0.")

    def at(self, space: PairSpace) -> "FixedPlan":
        """The plan in numbers, on a log; the rules are those of ``docs/defaults.md``."""
        rows, pairs, steps = self.observed_batch, self.pair_batch, self.steps
        if rows == AUTO:
            rows = row_batch(space.n_train)
        if pairs == AUTO:
            beside = round(int(rows) * self.pairs_per_row)
            pairs = beside or propensity_batch(space.n_train, space.density)
        hold_out = bool(self.select)
        sampler = BatchSampler(space, "", int(rows), int(pairs), hold_out=hold_out)
        if steps is None or (steps == AUTO and rows):
            steps = sampler.steps_per_epoch()
        elif steps == AUTO:
            steps = -(-min(sampler.n_cells, PASSES * space.n_train) // sampler.pair_batch)
        epochs, patience = self.epochs, self.patience
        if epochs == AUTO:
            epochs = _within(LENGTH, int(steps), EPOCHS)
        if patience == AUTO:
            wait, bounds = (ROWS_WAIT, ROWS_PATIENCE) if rows else (WAIT, PATIENCE)
            patience = _within(wait, int(steps), bounds)
        return FixedPlan(
            epochs=int(epochs),
            observed_batch=int(rows),
            pair_batch=int(pairs),
            patience=int(patience),
            steps=int(steps),
            select=self.select,
        )


@dataclass(frozen=True)
class FixedPlan:
    """A ``StagePlan`` in numbers."""

    epochs: int
    observed_batch: int
    pair_batch: int
    patience: int
    steps: int
    select: bool | str


def row_batch(rows: int) -> int:
    """Batch of O: the power of two nearest 7 sqrt(rows), in 64..65536, and at most all rows.

    >>> row_batch(6264), row_batch(300_000), row_batch(20)
    (512, 4096, 16)
    """
    nearest = nearest_power(7 * math.sqrt(rows))
    return min(max(SMALLEST, nearest), LARGEST, 1 << (rows.bit_length() - 1))


def propensity_batch(rows: int, density: float) -> int:
    """Pairs of D in a step of a propensity: as many as hold a batch of O, in 4096..65536.

    >>> propensity_batch(6264, 0.08), propensity_batch(300_000, 0.003)
    (8192, 65536)
    """
    return min(max(PAIRS, nearest_power(row_batch(rows) / density)), LARGEST)


def nearest_power(value: float) -> int:
    """The power of two nearest to a value of at least 1, by their ratio."""
    power: int = 2 ** max(0, round(math.log2(value)))
    return power


def _within(total: int, steps: int, bounds: tuple[int, int]) -> int:
    """Epochs that make ``total`` steps, inside the bounds."""
    return min(max(-(-total // steps), bounds[0]), bounds[1])
