"""The settings that a run folder records, as far as a folder may speak for its reader.

``resume=`` takes up what the first start was given. A folder from elsewhere could name there
callbacks, launchers or classes of any library, which Hydra would run. So only settings of our own
keys are taken up, with plain values; for anything else the reader has to ask.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from upo.core.yaml_files import YamlError, read_yaml
from upo.errors import InputError
from upo.runs.compose import conf_dir
from upo.runs.config import Train

MOST = 1000  # overrides
ENTRIES = 100_000  # files of a run folder
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
