"""``python -m upo.counterfactual``: metrics of a file of scores from a file of the biased log."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from upo.core.arguments import Command, argument
from upo.core.console import command, one_line, quiet
from upo.counterfactual.estimates import ESTIMATORS, RATIOS
from upo.counterfactual.evaluate import evaluate
from upo.counterfactual.metrics import METRICS
from upo.errors import DoubtfulEstimateWarning
from upo.tables.files import read_whole
from upo.tables.writer import table_writer


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    log: Path = argument(
        "observed pairs: user, item, rating, propensity", value="FILE", must="file"
    )
    scores: Path = argument("all candidate pairs: user, item, score", value="FILE", must="file")
    out: Path | None = argument("write the table there, too", default=None, value="FILE")
    metrics: tuple[str, ...] = argument(
        "which metrics", default=tuple(METRICS), value="A,B", choices=tuple(METRICS)
    )
    estimator: tuple[str, ...] = argument(
        "which estimates", default=(RATIOS[0],), value="A,B", choices=tuple(ESTIMATORS)
    )
    imputed: str | None = argument(
        "column of scores that the doubly robust estimate needs", default=None
    )
    k: int = argument("cutoff of the ranking metrics", default=5, value="N")
    label_threshold: float | None = argument(
        "ratings of at least this are positive; null takes ratings as they are",
        default=3.0,
        value="NUMBER",
    )
    confidence: float = argument("of the intervals", default=0.95, value="NUMBER")
    user: str = argument("name of the user column", default="user")
    item: str = argument("name of the item column", default="item")
    rating: str = argument("name of the rating column of the log", default="rating")
    score: str = argument("name of the score column of the scores", default="score")
    propensity: str = argument("name of the propensity column of the log", default="propensity")


COMMAND = Command(
    "evaluate",
    "Metrics of a file of scores, corrected for the bias of a log by its propensities",
    Settings,
    ("log=FILE scores=FILE [key=value ...]",),
    notes=("Files are CSV (.csv .tsv .txt, also .gz) or Parquet.",),
    module="upo.counterfactual",
)


def main(words: Sequence[str]) -> None:
    """Read both files, estimate, print and write."""
    given, _ = COMMAND.parse(words)
    ids = [given.user, given.item]
    imputed = [] if given.imputed is None else [given.imputed]
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", DoubtfulEstimateWarning)
        found = _evaluated(given, ids, imputed)
    if given.out is not None:
        with table_writer(given.out, "out") as writer:
            writer.write(pa.Table.from_pandas(found, preserve_index=False))
    sys.stdout.write(found.to_string(index=False, float_format="{:.4g}".format) + "\n")
    for doubt in doubts:
        sys.stderr.write(f"warning: {one_line(str(doubt.message))}\n")


def _evaluated(given: Settings, ids: list[str], imputed: list[str]) -> pd.DataFrame:
    return evaluate(
        read_whole(given.log, "log", ids, [given.rating, given.propensity]),
        read_whole(given.scores, "scores", ids, [given.score, *imputed]),
        given.propensity,
        metrics=list(given.metrics),
        k=given.k,
        estimator=list(given.estimator),
        imputed=given.imputed,
        label_threshold=given.label_threshold,
        user=given.user,
        item=given.item,
        rating=given.rating,
        score=given.score,
        confidence=given.confidence,
    )


if __name__ == "__main__":
    quiet()
    command(lambda: main(sys.argv[1:]))
