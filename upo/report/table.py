"""The Markdown table of a benchmark: measured means with intervals beside the published figures."""

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files

from upo.metrics.names import DIAGNOSED, HELD, WORTH
from upo.runs.results import BUDGET, Row, seed_failed, spread

Cell = tuple[float, float]
RANKING = ("auc", "ndcg@", "f1@")


def published(dataset: str) -> dict[str, dict[str, Cell]]:
    """Estimator -> ``auc``, ``ndcg``, ``f1`` -> mean and sd in Table 2 of the UPO paper."""
    text = files("upo.report").joinpath("published.csv").read_text(encoding="utf-8")
    return {
        row["estimator"]: {
            name: (float(row[name]), float(row[f"{name}_sd"])) for name in ("auc", "ndcg", "f1")
        }
        for row in csv.DictReader(text.splitlines())
        if row["dataset"] == dataset
    }


def markdown(
    runs: Mapping[str, Sequence[Row]],
    *,
    command: str,
    dataset: str,
    protocol: str,
    failed: Mapping[str, str],
) -> str:
    """One row for each estimator: mean +- sd, 95 % interval of the mean, the paper's mean.

    The metrics are AUC, NDCG and F1, or the log-loss of held-out rows where there is no test set.

    Args:
        runs: Estimator -> its rows of results.
        command: The command that made them, printed on top.
        dataset: Name of the dataset.
        protocol: Label of the protocol.
        failed: Estimator -> why it has no rows.
    """
    first = next(iter(runs.values()))[0]
    # without a test set there is what was held out of the log
    ranking = {name.partition("@")[0]: name for name in first if name.startswith(RANKING)}
    columns = ranking or {"val_log_loss": "val_log_loss"}
    measured = ("log_loss", *DIAGNOSED, *HELD, "clip", *WORTH[-2:], *BUDGET[1:])
    diagnostics = [name for name in measured if name in first]
    paper = published(dataset)
    seeds = max(len(rows) for rows in runs.values())
    head = ["estimator"]
    for column in columns.values():
        head += [column, "95 %", "paper"]
    head += [*diagnostics, "parameters", "s / seed"]
    lines = [
        f"# {dataset}, {protocol}, {seeds} seeds",
        "",
        f"`{command}`",
        "",
        "Mean +- standard deviation over seeds, 95 % interval of the mean (t), and the mean in "
        "Table 2 of the UPO paper. Seconds are those of the whole stack divided by its seeds.",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
    ]
    for name, rows in runs.items():
        cells = [name]
        for key, column in columns.items():
            value = spread([float(row[column]) for row in rows if not seed_failed(row)])
            cells.append(f"{value['mean']:.4f} +- {value['sd']:.4f}")
            low, high = value["mean"] - value["ci95"], value["mean"] + value["ci95"]
            cells.append(f"{low:.4f}..{high:.4f}")
            known = paper.get(name, {}).get(key)
            cells.append("" if known is None else f"{known[0]:.3f}")
        for column in diagnostics:
            mean = spread([float(row[column]) for row in rows if not seed_failed(row)])["mean"]
            cells.append("" if mean != mean else f"{mean:.3g}")
        cells.append(f"{int(rows[0]['parameters']):,}")
        cells.append(f"{float(rows[0]['train_seconds']) / len(rows):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    if failed:
        lines += ["", "Failed:", *(f"- {name}: {why}" for name, why in failed.items())]
    return "\n".join(lines) + "\n"
