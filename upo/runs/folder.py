"""One run and its run folder: results, summary, figures, logs and the printed table."""

from pathlib import Path

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from upo.core.console import first_process, say
from upo.core.files import remove_unfinished
from upo.data.rating_data import report
from upo.data.table import write_id_maps
from upo.metrics.names import DIAGNOSED, HELD, WEIGHTS
from upo.runs import figures as run_figures
from upo.runs.auto import Choice, preferred
from upo.runs.by_user import NOTES, summaries, write_groups, write_users
from upo.runs.config import target_name
from upo.runs.experiment import Experiment, RunResult
from upo.runs.finished import begin
from upo.runs.loggers import log_final, make_loggers
from upo.runs.remarks import remarks, useless_seeds
from upo.runs.results import Row, summarize, table, write_rows, write_summary


def run(config: DictConfig, folder: Path, *, chatty: bool = True) -> list[Row]:
    """One run, from a composed configuration to its run folder.

    Args:
        config: Composed configuration.
        folder: Run folder.
        chatty: Print the dataset's report and the table of results.

    Returns:
        A row of results for each seed.
    """
    if first_process():
        for place in (folder, folder / "checkpoints", folder / "figures", folder / "logs"):
            remove_unfinished(place)
    experiment = Experiment(config, folder, progress=config.progress)
    data = experiment.datamodule.data
    if first_process() and not config.resume:
        begin(folder)
    if chatty:
        say(f"Results will land in {folder}")
        say(report(data))
    if data.user_ids is not None and first_process():
        write_id_maps(data, folder)
    experiment, choice = preferred(experiment)
    if choice is not None and chatty:
        say(str(choice))
    loggers = make_loggers(config)
    result = experiment.run(loggers=loggers)
    rows = result_rows(result, experiment)
    if first_process():
        said = remarks(rows, result.failures, data, target_name(experiment.config.estimator))
        _write(result, rows, said, experiment, folder, loggers, choice)
        if chatty:
            say("\n" + table(rows, title=_title(rows[0]), remarks=said))
            say(f"Results, checkpoints and figures: {folder}")
    return rows


def result_rows(result: RunResult, experiment: Experiment) -> list[Row]:
    """A row for each seed, columns as in the run folder's contract."""
    best = result.stages[-1].best_epoch
    rows = []
    for r, seed in enumerate(result.seeds):
        row: Row = {
            "dataset": experiment.datamodule.name,
            "estimator": experiment.config.estimator.name,
            "protocol": experiment.label,
            "seed": seed,
        }
        row |= {name: float(values[r]) for name, values in result.metrics.items()}
        for name in (*WEIGHTS, *DIAGNOSED):
            row.setdefault(name, float("nan"))  # no propensity, nothing to diagnose
        row["best_epoch"] = -1 if best is None or r in result.failures else int(best[r])
        row["parameters"] = result.estimator.parameters_per_replica
        row["train_seconds"] = round(result.seconds, 3)
        row |= dict.fromkeys(HELD, float("nan"))  # unless measured
        row |= {name: float(values[r]) for name, values in result.beside.items()}
        row |= _budget(result, experiment.config)
        rows.append(row)
    return rows


def _budget(result: RunResult, config: DictConfig) -> Row:
    """The clip in use, what the search of its values cost, and the epochs of all stages."""
    estimator, searched = result.estimator, config.get("budget") or {}
    clip = float("nan")
    if estimator.has_propensity:
        clip = estimator.weighting.floor(estimator)
    return {
        "clip": clip,
        "trials": searched.get("trials", 0),
        "trial_seeds": searched.get("seeds", 0),
        "epochs": sum(len(stage.history.epochs) for stage in result.stages),
    }


def _write(
    result: RunResult,
    rows: list[Row],
    said: list[str],
    experiment: Experiment,
    folder: Path,
    loggers: list[Logger],
    choice: Choice | None,
) -> None:
    write_rows(folder / "results.csv", rows)
    if result.users is not None:
        target = target_name(experiment.config.estimator)
        k = experiment.datamodule.k
        write_users(folder, result.users, result.healthy, k, target)
        write_groups(folder, result.groups, result.healthy)
    write_summary(
        folder / "summary.json",
        rows,
        {
            "test_selected": experiment.protocol.test_selected,
            "useless_seeds": useless_seeds(rows),
            "failed_seeds": [result.seeds[replica] for replica in sorted(result.failures)],
            "warnings": said,
            "folder": folder.name,
            NOTES: list((experiment.config.get("budget") or {}).get("notes", [])),
            **summaries(result),
            **({} if choice is None else {"auto": {**choice.kept, "seconds": choice.seconds}}),
            **({"fast_dev_run": experiment.trial_steps} if experiment.trial_steps else {}),
        },
    )
    drawn = {}
    if experiment.config.figures:
        drawn = run_figures.draw(result, folder / "figures", _title(rows[0]))
    means = {name: value["mean"] for name, value in summarize(rows).items()}
    log_final(loggers, means, drawn)


def _title(row: Row) -> str:
    return f"{row['dataset']}, {row['estimator']}, {row['protocol']}"
