"""``upo.audit``: the findings of an audit, and the report that is written of them."""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from upo.audit.findings import Findings
from upo.audit.pairs import Names, read_pairs
from upo.audit.report import page, write
from upo.core.given import listed, path_of, whole
from upo.errors import InputError


class Audit(Findings):
    """What an audit found, and its report."""

    def __repr__(self) -> str:
        return f"<upo.Audit of {len(self.pairs):,} pairs: {self.n_found} findings>"

    def to_html(self, title: str = "Propensity audit") -> str:
        """The report as one page of HTML that needs no other file."""
        return page(self, title)

    def save(
        self, folder: str | Path, title: str = "Propensity audit", *, spreadsheet: bool = True
    ) -> Path:
        """Write ``report.html``, and the tables as CSV.

        These are ``findings``, ``tests``, ``calibration``, ``balance``, ``adversary`` and
        ``clips``.

        Args:
            folder: Where; it is made if it is not there.
            title: Of the page.
            spreadsheet: Put ``'`` before text that a spreadsheet would take for a formula.

        Returns:
            The path of the report.

        Raises:
            InputError: If the folder cannot be written.
        """
        return write(self, path_of("out", folder), title, spreadsheet=spreadsheet)


def audit(
    pairs: Any,
    *,
    features: Sequence[str] | None = None,
    user: str = "user",
    item: str = "item",
    observed: str = "observed",
    propensity: str = "propensity",
    weight: str | None = None,
    out: str | Path | None = None,
    alpha: float = 0.05,
    p_min: float | None = None,
    num_bins: int = 10,
    seed: int = 0,
) -> Audit:
    """Audit given propensities: calibration, balance, weights, and where they are most wrong.

    Args:
        pairs: A row for each pair of a user and an item, a pair at most once: pandas, polars,
            pyarrow. Further columns of numbers are features, of few texts groups.
        features: The further columns to use; all that can be used if not given.
        user: Name of the user column.
        item: Name of the item column.
        observed: Name of the column of o, 0 or 1.
        propensity: Name of the column of propensities in (0, 1].
        weight: Name of the column of how many pairs of D a row stands for; ``weight`` if there is
            such a column, else 1 for every row. It may depend on the user and on o.
        out: Folder to write the report into; nothing is written if not given.
        alpha: Family-wise error rate of everything found, in (0, 1).
        p_min: A clip to show among others, in (0, 1); none is shaded if not given.
        num_bins: Bins of the propensity.
        seed: Of the split, the adversary and the simulation.

    Raises:
        InputError: If the table or an argument is wrong; the message says what and how to fix it.
    """
    for name, value in (("alpha", alpha), ("p_min", 0.05 if p_min is None else p_min)):
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not 0 < value < 1:
            raise InputError(f"{name} must be a number in (0, 1), got {value!r}; try 0.05.")
    num_bins, seed = whole("num_bins", num_bins, 1, 10), whole("seed", seed, 0, 10)
    if features is not None:
        features = listed("features", features)
    names = Names(user, item, observed, propensity, weight)
    result = Audit(
        read_pairs(pairs, names, features, "pairs"),
        alpha=float(alpha),
        p_min=None if p_min is None else float(p_min),
        num_bins=num_bins,
        seed=seed,
    )
    if out is not None:
        result.save(out)
    return result
