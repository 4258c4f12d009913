"""The settings that a run folder records, as far as a folder may speak for its reader.

``resume=`` goes on with what the first start was given. A folder from elsewhere could name there
callbacks, launchers or classes of any library, which Hydra would run. So only settings of our own
keys are read, with plain values; for anything else the reader has to ask.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from upo.core.yaml_files import YamlError, parse_yaml, read_yaml
from upo.errors import InputError
from upo.runs.compose import conf_dir
from upo.runs.config import Train

MOST = 1000  # overrides
ENTRIES = 100_000  # files of a run folder
SETTINGS = Path(".hydra") / "config.yaml"  # of the first start, as composed
# what a start may change: where a run is computed, what it prints and where it logs
_FREE = {"resume", "compare_with", "keep", "compile", "progress", "figures", "logger", "paths"}
_FREE |= {
    f"trainer.{key}"
    for key in (
        *("accelerator", "devices", "num_nodes", "strategy", "deterministic", "benchmark"),
        *("detect_anomaly", "replay", "oversubscribe", "max_time"),
    )
}
# settings that came later, with what runs of before did
_LATER = {"trainer.tables": "replicated"}
_OVERRIDE = re.compile(r"(~|\+\+?)?(?P<key>[A-Za-z_][\w/.@-]*)(=(?P<value>.*))?", re.DOTALL)
_CHOICE = re.compile(r"\w+(/\w+)*")
_NAME = re.compile(r"['\"]?[\w][\w .-]{0,60}['\"]?")
# these reach other folders or other machines
_ASKED = ("download", "cache_dir", "save_dir", "default_root_dir")


def recorded(folder: Path, given: Sequence[str]) -> list[str]:
    """The overrides of the first start.

    Args:
        folder: The run folder.
        given: Overrides of this start; what stands here too is the reader's own.

    Raises:
        InputError: If there is no record, it is damaged, it sets what only the reader may set, or
            a link leads out of the folder.
    """
    path = folder / ".hydra" / "overrides.yaml"
    if not path.is_file():
        raise InputError(f"resume={folder}: no run was started there ({path} is missing).")
    try:
        overrides = read_yaml(path)
    except (YamlError, OSError) as error:
        raise InputError(f"resume={folder}: {path} is damaged ({error}); run anew.") from error
    if not isinstance(overrides, list) or len(overrides) > MOST:
        # killed before the first start had written it
        raise InputError(f"resume={folder}: {path} is empty or damaged; run anew.")
    known = {field.name for field in fields(Train)}
    groups = {entry.name for entry in conf_dir().iterdir() if entry.is_dir()} - {"hydra"}
    for override in overrides:
        if override in given:
            continue
        if not isinstance(override, str) or not _own(override, known, groups):
            raise InputError(
                f"resume={folder}: {path} sets {str(override)[:80]!r}, which may run code or reach "
                "out of the folder; if you trust it, give the same on the command line."
            )
    _check_search(folder, given)
    _check_links(folder)
    return [o for o in overrides if not o.startswith("resume=") and o not in given]


def check_same(folder: Path, config: DictConfig) -> None:
    """Refuse settings that would compute something else than the first start.

    Args:
        folder: The run folder.
        config: The composed configuration of this start.

    Raises:
        InputError: If there are any, or the record of the first start is damaged.
    """
    path = folder / SETTINGS
    try:
        before, now = read_yaml(path), parse_yaml(OmegaConf.to_yaml(config))
    except (YamlError, OSError) as error:
        raise InputError(f"resume={folder}: {path} is damaged ({error}); run anew.") from error
    old, new = (dict(_settings(tree)) for tree in (before, now))
    old = {key: value for key, value in _LATER.items() if key in new} | old
    missing = object()
    changed = [k for k in {**new, **old} if old.get(k, missing) != new.get(k, missing)]
    if changed:
        key = min(changed, key=lambda key: not key.endswith(".name"))  # a choice, before its parts
        others = len(changed) - 1
        raise InputError(
            f"resume={folder}: {key} was {_shown(old, key)} when the run was started and is "
            f"{_shown(new, key)} now{f' (and {others} more settings differ)' if others else ''}, "
            "which would compute something else; leave it out, or start a new run."
        )


def _settings(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values that may not change."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        name = f"{prefix}{key}"
        if name in _FREE:
            continue
        if isinstance(value, dict) and value:
            yield from _settings(value, f"{name}.")
        else:
            yield name, value


def _shown(settings: dict[str, Any], key: str) -> str:
    if key not in settings:
        return "not set"
    value = settings[key]
    return "null" if value is None else str(value)[:80]


def _own(override: str, known: set[str], groups: set[str]) -> bool:
    """Whether an override sets a key of ours to a plain value."""
    found = _OVERRIDE.fullmatch(override)
    if found is None:
        return False
    key, value = found["key"], found["value"] or ""
    parts = [part for part in re.split(r"[/.@]", key) if part != "_global_"]
    if parts[0] not in known | groups or (parts[0] == "logger" and len(parts) > 1):
        return False
    if any(part in _ASKED or part == "hydra" or part.startswith("_") for part in parts):
        return False
    if "{" in value or len(value) > 4096:  # settings within settings, and references
        return False
    if parts[-1] == "name" and not _NAME.fullmatch(value):
        return False
    if override.startswith("~") and not value:
        return True
    choice = parts[0] in groups and ("." not in key or "@" in key)
    return not choice or bool(_CHOICE.fullmatch(value))


def _check_search(folder: Path, given: Sequence[str]) -> None:
    """Folders of further configurations may name any class, so the reader has to name them."""
    path = folder / ".hydra" / "hydra.yaml"
    try:
        record = read_yaml(path) if path.exists() else {}
        words = record.get("hydra", {}).get("overrides", {}).get("hydra") or []
        asked = [str(w) for w in words if str(w).startswith("hydra.searchpath=")]
    except (YamlError, OSError, AttributeError, TypeError) as error:
        raise InputError(f"resume={folder}: {path} is damaged; restore it or run anew.") from error
    for word in asked:
        if word not in given:
            raise InputError(
                f"resume={folder}: the run took configurations from {word[17:]!r}, which may run "
                f"code; if you trust it, give {word} on the command line."
            )


def _check_links(folder: Path) -> None:
    for count, path in enumerate(folder.rglob("*")):
        if count > ENTRIES:
            raise InputError(f"resume={folder}: it holds more than {ENTRIES:,} files; run anew.")
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"resume={folder}: {path} is a link that leads out of the folder, through which "
                "the run would write elsewhere; replace it by a copy."
            )
