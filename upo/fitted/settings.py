"""Settings of the Python API as a composed configuration, with errors in sentences."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from upo.core.console import cause, quiet, signals_first
from upo.errors import InputError
from upo.runs.compose import choices, chosen, composed
from upo.runs.overrides import default_choices
from upo.runs.tuned import NOT_TUNED
from upo.training.settings import alone, tables_spread

# chosen by name, as in train.py
GROUPS = (
    *("target", "backbone", "fit", "objective", "imputation", "propensity", "variant"),
    *("protocol", "trainer", "experiment"),
)
ARGUMENTS = {
    "dataset.train": "train",
    "dataset.test": "test",
    "dataset.user_column": "user",
    "dataset.item_column": "item",
    "dataset.rating_column": "rating",
    "dataset.time": "time",
    "dataset.label_threshold": "label_threshold",
    "dataset.user_features": "user_features",
    "dataset.item_features": "item_features",
}


# further keys of a table that are arguments here
SHORT = ("test_after", "duplicates", "rating_range", "drop_overlap", "label_strict", "k")
_NAMES = ARGUMENTS | {f"dataset.{x}": x for x in SHORT}
_KEY = re.compile(r"\b(" + "|".join(map(re.escape, _NAMES)) + r")\b(?:=(?P<value>[\w.]*\w))?")


def in_python(sentence: str) -> str:
    """A sentence of the command line in the words of this API.

    >>> in_python("by hand or with dataset.duplicates=mean where the dataset has that key.")
    "by hand or with duplicates='mean'."
    """

    def argument(found: re.Match[str]) -> str:
        name, value = _NAMES[found[1]], found["value"]
        if value is None:
            return name
        return f"{name}={value if value.isdigit() else repr(value)}"

    return _KEY.sub(argument, sentence).replace(" where the dataset has that key", "")


def flat(overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested settings; those under ``overrides`` are dotted already."""
    dotted: dict[str, Any] = {}
    for key, value in overrides.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            dotted |= flat(value, "" if name == "overrides" else f"{name}.")
        elif name == "overrides":
            if value is not None:
                raise InputError(
                    "overrides must be a dictionary of dotted keys, as in "
                    f"overrides={{'estimator.weighting.p_min': 0.1}}, got {type(value).__name__}."
                )
        else:
            dotted[name] = value
    return dotted


def composed_run(
    estimator: str | None, settings: Mapping[str, Any], more: Sequence[str] = (NOT_TUNED,)
) -> DictConfig:
    """The configuration of ``train.py`` with these settings.

    Args:
        estimator: Its name; the default's if None.
        settings: By dotted key.
        more: Further words; by default, those that leave tuned values out.

    Raises:
        InputError: If a setting is unknown or of the wrong type.
    """
    settings = {f"dataset.{key}" if key in SHORT else key: x for key, x in settings.items()}
    words = ["logger=none", "figures=false", "dataset=table", "dataset.train=memory", *more]
    if estimator is not None:
        words.append(chosen("estimator", estimator, choices("estimator")))
    values = {}
    for key, value in settings.items():
        if key in GROUPS and value is None and default_choices()[key] is None:
            continue  # as it is
        if key in GROUPS:
            words.append(chosen(key, value, choices(key)))
        elif key in ARGUMENTS:
            raise InputError(f"{key} is not an override here; give the argument {ARGUMENTS[key]}=.")
        elif key in ("seeds", "compile", "auto", "refit") or key.startswith(
            ("estimator.", "propensity.", "trainer.", "protocol.", "dataset.")
        ):
            values[key] = _grammar(key, value)
        else:
            raise InputError(
                f"fit has no setting {key!r}; allowed are its arguments, {', '.join(GROUPS)}, "
                f"{', '.join(SHORT)}, and dotted keys such as estimator.weighting.p_min, "
                "as **{'dotted.key': value}."
            )
    with as_library():
        _check_known(composed(words), settings, list(values))
        config = composed([*words, *(f"{key}={value}" for key, value in values.items())])
        if tables_spread(config.trainer) and not alone(config.trainer):
            raise InputError(
                "A model in Python has whole tables, and trainer.tables=sharded leaves parts of "
                "them to several processes; train with train.py and read the run by upo.load."
            )
        return config


def _check_known(config: DictConfig, settings: Mapping[str, Any], keys: list[str]) -> None:
    """Name a key that the configuration does not have, with its neighbours, or text for a number.

    Raises:
        InputError: If there is one.
    """
    for key in keys:
        above, _, last = key.rpartition(".")
        parent = OmegaConf.select(config, above) if above else config
        if not isinstance(parent, DictConfig) or last not in parent:
            known = [x for x in map(str, parent or []) if not x.startswith("_")]
            have = ", ".join(known) or "no settings"
            raise InputError(
                f"There is no setting {key} with estimator={config.estimator.name}; {above} has "
                f"{have}."
            )
        before = OmegaConf.select(config, key, throw_on_missing=False)
        number = isinstance(before, int | float) and not isinstance(before, bool)
        text = isinstance(settings[key], str) and settings[key] != "auto"
        if number and text and above != "trainer":
            raise InputError(f"{key} must be a number such as {before}, got {settings[key]!r}.")


def _grammar(key: str, value: Any) -> str:
    """A value in the words of Hydra's overrides."""
    value = plain(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return QuotedString(str(value), Quote.single).with_quotes()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_grammar(key, inner) for inner in value) + "]"
    raise InputError(
        f"{key} must be a number, text, true, false, null or a list of them, got "
        f"{type(value).__name__}; fix it."
    )


def plain(value: Any) -> Any:
    """A setting without numpy, torch or paths, so that a file may hold it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def resolved(config: DictConfig) -> DictConfig:
    """The estimator's part, which stands alone once its references are followed."""
    plain = OmegaConf.create(OmegaConf.to_yaml(config.estimator, resolve=True))
    assert isinstance(plain, DictConfig)  # a mapping, as it was before
    return plain


@contextmanager
def as_library() -> Iterator[None]:
    """Silence other libraries for a while, and end what a person can fix in one sentence."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), signals_first():
            quiet()
            yield
    except InputError as error:
        error.args = (in_python(str(error)),)
        raise
    except (HydraException, OmegaConfBaseException, MisconfigurationException) as error:
        raise InputError(" ".join(str(cause(error)).split())) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
