"""The figures of a run: reliability, histogram of propensities, curves, residuals of the game."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from upo import figures
from upo.evaluation.diagnostics import Diagnosis

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
    panels = []
    for stage in stages:
        steps = (np.asarray(stage.history.epochs) + 1) * stage.steps_per_epoch
        for split, label in (("train", "loss"), ("val", "selection metric")):
            series = {
                name.rsplit("/", 1)[-1]: np.stack([v.numpy() for v in values])
                for name, values in stage.history.logs.items()
                if f"/{split}/" in name
            }
            if split == "val" and stage.monitor in series:
                series = {stage.monitor: series[stage.monitor]}
            best = None
            if split == "val" and stage.best_epoch is not None:
                best = (stage.best_epoch.cpu().numpy() + 1) * stage.steps_per_epoch
            if series:
                panels.append(figures.CurvePanel(steps, series, label, best=best, title=stage.name))
    return figures.curve_panels(panels, title=title)


def _residuals(stage: "StageResult", title: str) -> Figure:
    steps = (np.asarray(stage.history.epochs) + 1) * stage.steps_per_epoch
    residuals = np.stack([value.numpy() for value in stage.history.residuals])  # [T, R, M]
    return figures.worst_bin_residuals(
        steps, residuals, title=f"Residuals by bin as the adversary weighs them\n{title}"
    )
