"""Held-out log-loss by penalty, rate and clip, log by log: ``python tests/benchmarks/curves.py``.

Every value of a curve is a replica of one run, all with the same held-out rows and seed. The figure
and its numbers are those of docs/defaults.md: ``--out docs/curves`` writes .csv and .png. No value
is chosen here, and no test set is read.
"""

import argparse
import csv
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from omegaconf import DictConfig, OmegaConf

from upo.data.battery import LOGS
from upo.figures.png import save
from upo.figures.style import LINES, MARKERS, MUTED, PALETTE, styled
from upo.pairs.summary import LEAST
from upo.runs.compose import composed
from upo.runs.experiment import Experiment


@dataclass(frozen=True)
class Curve:
    """One setting of a row, which varies while the others are the defaults."""

    name: str
    row: str
    keys: tuple[str, ...]
    values: tuple[float, ...]

    def setting(self, value: float, config: DictConfig) -> dict[str, float]:
        """All keys in the proportion of their defaults."""
        key, *others = self.keys
        default = partial(OmegaConf.select, config)
        return {key: value} | {x: value * default(x) / default(key) for x in others}

    @property
    def default(self) -> float:
        """The default, or the least that the log may make it."""
        value = OmegaConf.select(composed_for(self, "tiny"), self.keys[0])
        return LEAST if value == "auto" else float(value)


PREDICTION = "estimator.learners.prediction"
PENALTIES = (f"{PREDICTION}.penalty.rows", f"{PREDICTION}.penalty.biases")
CURVES = (
    Curve("penalty of rows", "naive", PENALTIES, (0.001, 0.003, 0.01, 0.03, 0.06, 0.12, 0.3)),
    Curve("rate", "naive", (f"{PREDICTION}.optimizer.lr",), (0.0003, 0.001, 0.003, 0.01, 0.03)),
    Curve("clip, times density", "ips", ("estimator.weighting.p_min",), (0.1, 0.25, 0.5, 1, 2, 4)),
)


def composed_for(curve: Curve, log: str) -> DictConfig:
    """The defaults of the curve's row on a log."""
    words = ["dataset=battery", f"dataset.log={log}", f"estimator={curve.row}", "logger=none"]
    return composed([*words, "trainer.accelerator=cpu"])


def measured(curve: Curve, log: str, seed: int) -> list[float]:
    """Best held-out log-loss of each value of a curve."""
    config = composed_for(curve, log)
    settings = [curve.setting(value, config) for value in curve.values]
    stage = Experiment(config, progress=False).tried(settings, [seed])
    return [float(x) for x in stage.best]


@styled()
def drawn(rows: list[dict[str, str]], path: Path) -> None:
    """A panel for each setting: what a value loses against the best of its log; the default."""
    figure, panels = plt.subplots(
        1, len(CURVES), figsize=(10, 3.8), sharey=True, layout="constrained"
    )
    for panel, curve in zip(panels, CURVES, strict=True):
        for n, log in enumerate(dict.fromkeys(row["log"] for row in rows)):
            mine = [r for r in rows if r["log"] == log and r["setting"] == curve.name]
            losses = [float(row["log_loss"]) for row in mine]
            panel.plot(
                [float(row["value"]) for row in mine],
                [x - min(losses) for x in losses],
                color=PALETTE[n % (len(PALETTE) - 1)],
                linestyle=LINES[n // (len(PALETTE) - 1)],
                marker=MARKERS[n % len(MARKERS)],
                label=log,
            )
        panel.axvline(curve.default, color=MUTED, linewidth=1.0, zorder=0)
        panel.set(xscale="log", xlabel=f"{curve.name} (row {curve.row}; line: default)")
    panels[0].set(ylabel="held-out log-loss less the least of the log")
    panels[0].set_yscale("symlog", linthresh=0.01)
    panels[0].set_ylim(bottom=-5e-4)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", frameon=False)
    save(figure, path)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    """Measure, print and write; what is measured already is read from the CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", default=",".join(LOGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("curves"))
    options = parser.parse_args(argv)
    table, fields = options.out.with_suffix(".csv"), ("log", "setting", "row", "value", "log_loss")
    rows: list[dict[str, str]] = []
    if table.is_file():
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for log in options.logs.split(","):
        for curve in CURVES:
            if any((r["log"], r["setting"]) == (log, curve.name) for r in rows):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                losses = measured(curve, log, options.seed)
            for value, loss in zip(curve.values, losses, strict=True):
                numbers = {"value": f"{value:g}", "log_loss": f"{loss:.6f}"}
                rows.append({"log": log, "setting": curve.name, "row": curve.row, **numbers})
            said = "  ".join(f"{v:g}: {x:.4f}" for v, x in zip(curve.values, losses, strict=True))
            sys.stdout.write(f"{log:14}{curve.name:22}{said}\n")
            sys.stdout.flush()
            with table.open("w", newline="") as file:
                writer = csv.DictWriter(file, fields)
                writer.writeheader()
                writer.writerows(rows)
    drawn(rows, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
