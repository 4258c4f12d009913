"""``python -m upo.audit pairs=FILE``: the audit of given propensities."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from upo.audit.result import audit
from upo.core.arguments import Command, argument
from upo.core.console import command, quiet, say
from upo.tables.files import read_every_column


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    pairs: Path = argument(
        "a row for each pair: user, item, observed (0 or 1), propensity in (0, 1], and, if rows "
        "stand for several pairs, weight",
        value="FILE",
        must="file",
    )
    out: Path = argument(
        "gets report.html and the tables as CSV", default=Path("audit"), value="FOLDER"
    )
    features: tuple[str, ...] | None = argument(
        "further columns to use: numbers are features, few texts groups; none for none (all)",
        default=None,
        value="A,B",
    )
    alpha: float = argument(
        "family-wise error rate of everything found", default=0.05, value="NUMBER"
    )
    p_min: float | None = argument("a clip to show among others", default=None, value="NUMBER")
    num_bins: int = argument("bins of the propensity", default=10, value="N")
    seed: int = argument("of the adversary and the simulation", default=0, value="N")
    user: str = argument("name of the user column", default="user")
    item: str = argument("name of the item column", default="item")
    observed: str = argument("name of the column of 0 and 1", default="observed")
    propensity: str = argument("name of the propensity column", default="propensity")
    weight: str | None = argument("name of the weight column, if there is one", default=None)
    spreadsheet: bool = argument(
        "put ' before text in tables that a spreadsheet would take for a formula",
        default=True,
        value="false",
    )


COMMAND = Command(
    "audit",
    "Audit of given propensities: calibration, balance, overlap, what they cost",
    Settings,
    ("pairs=FILE [out=FOLDER] [key=value ...]",),
    notes=("Files are CSV or Parquet. docs/audit.md says how to read each part.",),
)


def main(words: Sequence[str]) -> None:
    """Audit a file, print what was found, and write the report.

    Raises:
        InputError: If an argument or the file is wrong.
    """
    given, _ = COMMAND.parse(words)
    features = None
    if given.features is not None:
        features = [] if given.features == ("none",) else list(given.features)
    result = audit(
        read_every_column(given.pairs, "pairs", (given.user, given.item)),
        features=features,
        alpha=given.alpha,
        p_min=given.p_min,
        num_bins=given.num_bins,
        seed=given.seed,
        user=given.user,
        item=given.item,
        observed=given.observed,
        propensity=given.propensity,
        weight=given.weight,
    )
    report = result.save(
        given.out,
        title=f"Propensity audit of {given.pairs.name}",
        spreadsheet=given.spreadsheet,
    )
    say(f"{result.summary()}\nwritten: {report}")


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
