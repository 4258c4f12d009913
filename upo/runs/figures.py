"""The figures of a run: reliability, histogram of propensities, curves, residuals of the game."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from upo import figures
from upo.evaluation.diagnostics import Diagnosis
from upo.metrics.names import lower_is_better

Values = np.ndarray[Any, np.dtype[np.floating[Any]]]
# what chooses epochs, in words and units
UNITS = {
    "cross_entropy": "cross-entropy, nats per pair",
    "log_loss": "log-loss, nats per rating",
    "mse": "mean squared error, squared units",
    "rmse": "root mean squared error, units of the ratings",
    "auc": "AUC, share of pairs in order",
}
LOWER = ("cross_entropy", "rmse", "mae")  # is better, of what is no column of results

if TYPE_CHECKING:
    from upo.runs.experiment import RunResult
    from upo.runs.fitting import StageResult


def draw(result: "RunResult", folder: Path, title: str) -> dict[str, Path]:
    """Draw every figure that the run has data for.

    Args:
        result: A finished run.
        folder: Where the PNG files go.
        title: Dataset, estimator and protocol.

    Returns:
        Name -> file.
    """
    drawn: dict[str, Figure] = {}
    if result.diagnosis is not None:
        drawn["reliability"] = _reliability(result.diagnosis, title)
        drawn["propensities"] = _histogram(result.diagnosis, title)
    drawn["curves"] = _curves(result.stages, title)
    for stage in result.stages:
        if stage.history.residuals:
            drawn["worst_bins"] = _residuals(stage, title)
    return {name: figures.save(figure, folder / f"{name}.png") for name, figure in drawn.items()}


def _reliability(diagnosis: Diagnosis, title: str) -> Figure:
    bins = diagnosis.reliability
    count = bins.weight.cpu().numpy()
    low = np.arange(count.shape[-1]) / count.shape[-1]
    note = "" if diagnosis.definition == "correct" else f" ({diagnosis.definition})"
    return figures.reliability_diagram(
        low,
        low + 1 / count.shape[-1],
        bins.p_hat.cpu().numpy(),
        bins.observed.cpu().numpy(),
        count,
        title=f"Reliability of the propensity{note}\n{title}",
        ece=diagnosis.values["ece"].cpu().numpy(),
    )


def _histogram(diagnosis: Diagnosis, title: str) -> Figure:
    counts = diagnosis.histogram
    return figures.propensity_histogram(
        counts.counts_all.cpu().numpy(),
        counts.counts_observed.cpu().numpy(),
        diagnosis.edges.numpy(),
        clip=diagnosis.p_min,
        effective_sample_size=counts.effective_sample_size.cpu().numpy(),
        n_observed=float(counts.counts_observed.sum(-1).mean()),
        title=f"Propensities\n{title}",
    )


def _curves(stages: "Sequence[StageResult]", title: str) -> Figure:
    """A panel for each player of each stage, and one for what chose the stage's epoch."""
    panels = []
    for stage in stages:
        steps = (np.asarray(stage.history.epochs) + 1) * stage.steps_per_epoch
        logs = {
            name: np.stack([v.numpy() for v in values])
            for name, values in stage.history.logs.items()
        }
        trained = {name.rsplit("/", 1)[-1]: x for name, x in logs.items() if "/train/" in name}
        for player, series in _by_player(trained).items():
            gains = set(series) == {"gain"}
            label = "gain, mean (higher is better)" if gains else "loss, mean (lower is better)"
            named = {_words(what): values for what, values in series.items()}
            heading = f"{stage.name}: {_words(player)}, training"
            panels.append(figures.CurvePanel(steps, named, label, title=heading))
        chosen = logs.get(f"{stage.name}/val/{stage.monitor}")
        if chosen is not None:
            best = None
            if stage.best_epoch is not None:
                best = (stage.best_epoch.cpu().numpy() + 1) * stage.steps_per_epoch
            words = UNITS.get(stage.monitor, _words(stage.monitor))
            lower = stage.monitor in LOWER or lower_is_better(stage.monitor)
            way = "lower" if lower else "higher"
            panels.append(
                figures.CurvePanel(
                    steps,
                    {words.partition(",")[0]: chosen},
                    f"{words}\n({way} is better)",
                    best=best,
                    title=f"{stage.name}: held-out data, selection",
                )
            )
    return figures.curve_panels(panels, title=title)


def _by_player(series: "dict[str, Values]") -> "dict[str, dict[str, Values]]":
    """What was logged of each player: names are PLAYER_WHAT, and every player has a loss or gain.

    >>> {name: list(found) for name, found in _by_player({"game_loss": 1, "game_upo": 2}).items()}
    {'game': ['loss', 'upo']}
    """
    players = [name.rpartition("_")[0] for name in series if name.endswith(("_loss", "_gain"))]
    found: dict[str, dict[str, Values]] = {player: {} for player in players}
    for name, values in series.items():
        mine = [player for player in players if name.startswith(f"{player}_")]
        player = max(mine, key=len, default=name)
        what = name.removeprefix(f"{player}_") if mine else name
        found.setdefault(player, {})[what] = values
    return found


def _words(name: str) -> str:
    """A name of a log in words: capitals for what is an abbreviation."""
    return " ".join({"upo": "UPO"}.get(word, word) for word in name.split("_"))


def _residuals(stage: "StageResult", title: str) -> Figure:
    steps = (np.asarray(stage.history.epochs) + 1) * stage.steps_per_epoch
    residuals = np.stack([value.numpy() for value in stage.history.residuals])  # [T, R, M]
    return figures.worst_bin_residuals(
        steps, residuals, title=f"Residuals by bin as the adversary weighs them\n{title}"
    )
