"""``python -m upo.counterfactual``: metrics of a file of scores from a file of the biased log."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from upo.core.arguments import parse
from upo.core.console import sentences
from upo.counterfactual.estimates import RATIOS
from upo.counterfactual.evaluate import evaluate
from upo.counterfactual.metrics import METRICS
from upo.tables.files import read_whole, table_writer

USAGE = """
python -m upo.counterfactual log=FILE scores=FILE [key=value ...]

log=FILE             observed pairs: user, item, rating, propensity
scores=FILE          all candidate pairs: user, item, score
out=FILE             write the table there, too
metrics=A,B          some of log_loss, mse, precision, ndcg_full (all)
estimator=A,B        some of ips, snips, dr (snips)
imputed=NAME         column of scores that the doubly robust estimate needs
k=5                  cutoff of the ranking metrics
label_threshold=3    ratings of at least this are positive; null takes ratings as they are
confidence=0.95      of the intervals
user= item= rating= score= propensity=   names of the columns

Files are CSV (.csv .tsv .txt, also .gz) or Parquet.
"""


@dataclass(frozen=True)
class Settings:
    """What the command line takes."""

    log: Path
    scores: Path
    out: Path | None = None
    metrics: str = ",".join(METRICS)
    estimator: str = RATIOS[0]
    imputed: str | None = None
    k: int = 5
    label_threshold: float | None = 3.0
    confidence: float = 0.95
    user: str = "user"
    item: str = "item"
    rating: str = "rating"
    score: str = "score"
    propensity: str = "propensity"


def run(argv: list[str]) -> None:
    """Read both files, estimate, print and write."""
    given = parse(Settings, argv, USAGE)
    ids = [given.user, given.item]
    imputed = [] if given.imputed is None else [given.imputed]
    found = evaluate(
        read_whole(given.log, "log", ids, [given.rating, given.propensity]),
        read_whole(given.scores, "scores", ids, [given.score, *imputed]),
        given.propensity,
        metrics=given.metrics.split(","),
        k=given.k,
        estimator=given.estimator.split(","),
        imputed=given.imputed,
        label_threshold=given.label_threshold,
        user=given.user,
        item=given.item,
        rating=given.rating,
        score=given.score,
        confidence=given.confidence,
    )
    if given.out is not None:
        with table_writer(given.out, "out") as writer:
            writer.write(pa.Table.from_pandas(found, preserve_index=False))
    sys.stdout.write(found.to_string(index=False, float_format="{:.4g}".format) + "\n")


if __name__ == "__main__":
    sentences(lambda: run(sys.argv[1:]))
