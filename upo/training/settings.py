"""Settings of ``trainer.*``: which there are, what they mean here, what is refused before work.

Stages set much of Lightning's trainer themselves; what would be ignored or break a result is
refused with the setting that does it instead.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from omegaconf import DictConfig, ListConfig

from upo.core.arguments import nearest
from upo.errors import InputError

# passed on to Lightning
PASSED = {
    "accelerator": "cpu, gpu, mps or auto",
    "devices": "how many, or a list of their numbers",
    "num_nodes": "machines that a launcher has started this on",
    "strategy": "auto: sums over processes that make N devices equal one",
    "precision": "32-true, 64-true or bf16-mixed",
    "deterministic": "true: only deterministic algorithms; warn",
    "benchmark": "true: let cuDNN time its algorithms",
    "detect_anomaly": "true: name the operation that made a gradient NaN; slow",
}
OURS = {
    "tables": "replicated, or sharded: each process holds a range of the rows of every table",
    "replay": "record a step and replay it: auto, true or false",
    "oversubscribe": "true: more processes than the machine has cores",
    "max_time": "DD:HH:MM:SS after which the run stops, to be resumed",
    "fast_dev_run": "true or a number: so many steps of each stage, as a trial that is marked",
}
_LENGTH = "estimator.stages.STAGE.epochs, .steps and .patience say how long a stage trains"
_VALIDATION = "a validation follows each epoch and chooses the epoch, whole"
_OPTIMISER = "learners step their own optimisers; see estimator.learners"
_TEST = "the test set is measured once, whole, at the end"
REFUSED = {
    **dict.fromkeys(("max_epochs", "min_epochs", "max_steps", "min_steps"), _LENGTH),
    "limit_train_batches": f"{_LENGTH}; trainer.fast_dev_run=10 is a trial of 10 steps",
    "limit_val_batches": _VALIDATION,
    "limit_test_batches": _TEST,
    "limit_predict_batches": _TEST,
    "overfit_batches": _LENGTH,
    "val_check_interval": _VALIDATION,
    "check_val_every_n_epoch": _VALIDATION,
    "num_sanity_val_steps": _VALIDATION,
    "log_every_n_steps": "logs are means over an epoch",
    "enable_checkpointing": "checkpoints are written after each epoch, and resume= needs them",
    "enable_progress_bar": "progress=false draws no bar",
    "enable_model_summary": "the table of results names the number of parameters",
    "logger": "logger=csv, wandb, tensorboard or none chooses one",
    "enable_autolog_hparams": "the whole configuration is logged",
    "model_registry": "logger=csv, wandb, tensorboard or none chooses where a run is logged",
    "callbacks": "stages bring those that they need",
    "accumulate_grad_batches": _OPTIMISER,
    "gradient_clip_val": _OPTIMISER,
    "gradient_clip_algorithm": _OPTIMISER,
    "profiler": "python -m cProfile, or docs/speed.md, shows where time goes",
    "barebones": "without validation and logs no epoch could be chosen",
    "plugins": "trainer.precision and the launcher choose them",
    "sync_batchnorm": "no network here normalises over a batch",
    "inference_mode": "validation decides that itself",
    "use_distributed_sampler": "batches follow from step numbers; each process takes its slice",
    "reload_dataloaders_every_n_epochs": "batches follow from step numbers",
    "default_root_dir": "hydra.run.dir=FOLDER chooses the run folder",
}
_SWITCHES: dict[str, tuple[str, ...]] = {
    "deterministic": ("warn",),
    **dict.fromkeys(("benchmark", "detect_anomaly", "oversubscribe"), ()),
}
PRECISIONS = ("32-true", "32", "64-true", "64", "bf16-mixed")
# what tells that another program has started this process on each node
_LAUNCHED = ("TORCHELASTIC_RUN_ID", "JSM_NAMESPACE_RANK", "NODE_RANK", "GROUP_RANK")


def refuse_key(key: str) -> None:
    """Refuse a key under ``trainer`` that is unknown or another's business.

    Raises:
        InputError: With the setting that does it instead, or the nearest that there is.
    """
    if key in PASSED or key in OURS:
        return
    if key in REFUSED:
        raise InputError(f"trainer.{key} is not for a run to set: {REFUSED[key]}; leave it out.")
    near = nearest(key, [*PASSED, *OURS, *REFUSED])
    meant = f"did you mean trainer.{near}? K" if near else "k"
    raise InputError(f"trainer.{key} is unknown; {meant}nown are {', '.join([*PASSED, *OURS])}.")


def check_trainer(trainer: Mapping[Any, Any] | DictConfig) -> None:
    """Refuse what cannot work, before any data is read.

    Raises:
        InputError: If a key is unknown or a value cannot be meant.
    """
    for key in trainer:
        refuse_key(str(key))
    strategy = trainer.get("strategy", "auto")
    if strategy not in ("auto", "ddp"):
        raise InputError(
            f"trainer.strategy={strategy} is not available: gradients are summed over processes by "
            "upo itself, whatever started them; leave trainer.strategy=auto."
        )
    precision = str(trainer.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is not available: learners step without a scaler of "
            "gradients, which float16 needs, and sums need more than bfloat16 parameters hold; use "
            "trainer.precision=bf16-mixed, 32-true or 64-true."
        )
    for key, allowed in _SWITCHES.items():
        given = trainer.get(key, False)
        if given is not None and not (isinstance(given, bool) or given in allowed):
            words = ", ".join([*allowed, "true"])
            raise InputError(f"trainer.{key} must be {words} or false, got {given!r}.")
    nodes = trainer.get("num_nodes", 1)
    if isinstance(nodes, bool) or not isinstance(nodes, int) or nodes < 1:
        raise InputError(f"trainer.num_nodes must be a number of at least 1, got {nodes!r}.")
    count = device_count(trainer.get("devices", 1))
    if nodes > 1 and not (slurm_tasks() > 1 or any(name in os.environ for name in _LAUNCHED)):
        raise InputError(
            f"trainer.num_nodes={nodes} needs a launcher that starts this command on each node, "
            "such as torchrun or srun, and none has; docs/multi-device.md shows how."
        )
    started = _started()
    if count is not None and started > 1 and started != count * nodes:
        raise InputError(
            f"torchrun has started {started} processes, but trainer.devices={count} and "
            f"trainer.num_nodes={nodes} make {count * nodes}; let them match."
        )
    time_limit(trainer)
    trial_steps(trainer)
    tables_spread(trainer)


def tables_spread(trainer: Mapping[Any, Any] | DictConfig) -> bool:
    """Whether tables are spread over the processes by rows.

    Raises:
        InputError: If the setting is unknown, or the number of processes is not said.
    """
    tables = trainer.get("tables", "replicated")
    if tables not in ("replicated", "sharded"):
        raise InputError(f"trainer.tables must be replicated or sharded, got {tables!r}.")
    if tables == "sharded" and device_count(trainer.get("devices", 1)) is None:
        raise InputError(
            f"trainer.tables=sharded spreads rows over a number of processes, which "
            f"trainer.devices={trainer.get('devices')} does not say; give a number."
        )
    return bool(tables == "sharded")


def check_cores(trainer: Mapping[Any, Any] | DictConfig, accelerator: str) -> None:
    """Refuse more processes than cores unless asked for.

    Args:
        trainer: The settings.
        accelerator: Kind of device that is used, as torch calls it.

    Raises:
        InputError: If there are more processes on the CPU than cores.
    """
    count, cores = device_count(trainer.get("devices", 1)) or 1, _cores()
    if accelerator == "cpu" and count > cores and not trainer.get("oversubscribe", False):
        raise InputError(
            f"trainer.devices={count} would start {count} processes on the {cores} cores of this "
            f"machine, which has no other device in use; give trainer.devices={cores} or fewer, or "
            "trainer.oversubscribe=true to insist."
        )


def device_count(devices: Any) -> int | None:
    """Number of devices asked for; None where the machine decides (``auto``, ``-1``).

    Raises:
        InputError: If it is none of a number, numbers of devices and auto.
    """
    if devices in ("auto", -1, "-1"):
        return None
    if isinstance(devices, list | tuple | ListConfig):
        if devices and all(isinstance(d, int) and not isinstance(d, bool) for d in devices):
            return len(devices)
    elif isinstance(devices, int) and not isinstance(devices, bool) and devices >= 1:
        return devices
    elif isinstance(devices, str):
        numbers = [part.strip() for part in devices.split(",") if part.strip()]
        if numbers and all(number.isdecimal() for number in numbers):
            return len(numbers) if "," in devices else int(numbers[0]) or None
    raise InputError(
        f"trainer.devices={devices} is neither a number of at least 1, a list of device numbers "
        "nor auto; try trainer.devices=1."
    )


def alone(trainer: Mapping[Any, Any] | DictConfig) -> bool:
    """Whether the run is one process, whatever variables a launcher has left around it."""
    return device_count(trainer.get("devices", 1)) == 1 and trainer.get("num_nodes", 1) == 1


def place(trainer: Mapping[Any, Any] | DictConfig) -> int:
    """Number of this process among those of its run, before they have met; the first writes.

    A rank in the environment counts only where the run has several processes: tasks that one
    ``srun`` has started with a device each are runs of their own.
    """
    if alone(trainer):
        return 0
    if _started() > 1:
        return _of_launcher("RANK", 0)
    if slurm_tasks() > 1:
        return _of_launcher("SLURM_PROCID", 0)
    node, local = (_of_launcher(name, 0) for name in ("NODE_RANK", "LOCAL_RANK"))
    return node * (device_count(trainer.get("devices", 1)) or 1) + local


def slurm_tasks() -> int:
    """Tasks of the ``srun`` that has started this process; 1 outside one."""
    if os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return 1
    return _of_launcher("SLURM_NTASKS", 1)


def time_limit(trainer: Mapping[Any, Any] | DictConfig) -> float | None:
    """Seconds that ``max_time`` gives a run, if it does.

    Raises:
        InputError: If it is not a time.

    >>> time_limit({"max_time": "00:01:00:30"})
    3630.0
    """
    given = trainer.get("max_time")
    if given is None:
        return None
    try:
        if isinstance(given, str):
            days, hours, minutes, seconds = map(int, given.split(":"))
            parts = {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds}
        else:
            parts = {str(key): value for key, value in given.items()}
        found = timedelta(**parts).total_seconds()
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"trainer.max_time={given} is no time; write trainer.max_time='DD:HH:MM:SS', for "
            "example '00:11:30:00'."
        ) from error
    if found <= 0:
        raise InputError(f"trainer.max_time={given} leaves no time; give more than nothing.")
    return found


def trial_steps(trainer: Mapping[Any, Any] | DictConfig) -> int:
    """Steps of each stage under ``fast_dev_run``; 0 for a whole run.

    Raises:
        InputError: If it is neither true, false nor a number.
    """
    given = trainer.get("fast_dev_run", False)
    if isinstance(given, bool):
        return int(given)
    if not isinstance(given, int) or given < 0:
        raise InputError(f"trainer.fast_dev_run must be true or a number of steps, got {given!r}.")
    return given


def _started() -> int:
    """Processes that torchrun has started; 1 without it."""
    return _of_launcher("WORLD_SIZE", 1) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def _of_launcher(name: str, default: int) -> int:
    """A number that a launcher has left in the environment."""
    given = os.environ.get(name, "")
    if not given.strip():
        return default
    try:
        return int(given)
    except ValueError as error:
        raise InputError(
            f"the environment variable {name}={given} is no number, and this run reads it as a "
            f"launcher's; unset {name}."
        ) from error


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
