"""``python -m upo.audit pairs=FILE``: the audit of given propensities."""

import sys
from dataclasses import dataclass
from pathlib import Path

from upo.audit.reading import read_file
from upo.audit.result import audit
from upo.core.arguments import parse
from upo.core.console import sentences

USAGE = """
python -m upo.audit pairs=FILE [out=FOLDER] [key=value ...]

pairs=FILE         a row for each pair: user, item, observed (0 or 1), propensity in (0, 1], and,
                   if rows stand for several pairs, weight; CSV or Parquet
out=FOLDER         gets report.html and the tables as CSV (audit)
features=A,B       further columns to use: numbers are features, few texts groups (all; none)
alpha=0.05         family-wise error rate of everything found
p_min=0.05         a clip to show among others
num_bins=10        bins of the propensity
seed=0             of the adversary and the simulation
user= item= observed= propensity= weight=
                   names of the columns, if others

docs/audit.md says how to read each part.
"""


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    pairs: Path
    out: Path = Path("audit")
    features: str | None = None
    alpha: float = 0.05
    p_min: float = 0.05
    num_bins: int = 10
    seed: int = 0
    user: str = "user"
    item: str = "item"
    observed: str = "observed"
    propensity: str = "propensity"
    weight: str | None = None


def main(argv: list[str]) -> None:
    """Audit a file, print what was found, and write the report.

    Raises:
        InputError: If an argument or the file is wrong.
    """
    given = parse(Settings, argv, USAGE)
    features = None
    if given.features is not None:
        words = (word.strip() for word in given.features.strip("[]").split(","))
        features = [word for word in words if word and given.features != "none"]
    result = audit(
        read_file(given.pairs, (given.user, given.item)),
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
    report = result.save(given.out, title=f"Propensity audit of {given.pairs.name}")
    sys.stdout.write(f"{result.summary()}\nwritten: {report}\n")


if __name__ == "__main__":
    sentences(lambda: main(sys.argv[1:]))
