"""Where configurations come from, which choices there are, and composing one.

A name such as ``estimator=my_ips`` is looked for in the user's own folder, in ``conf/``, and in the
folders of ``hydra.searchpath``, in this order. Whoever needs a configuration asks here.
"""

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

import upo.runs.config
import upo.runs.places  # noqa: F401 - registers resolvers
from upo.errors import InputError


def conf_dir() -> Path:
    """Folder of the configurations: ``upo/conf`` where upo is installed, else the checkout's.

    Raises:
        InputError: If there is neither.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise InputError(f"{package / 'conf'} is missing; install upo again.")


def user_dir() -> Path:
    """Folder of the user's own configurations, which are found before those of upo.

    It is ``UPO_CONFIG_DIR``, else ``upo/conf`` in the user's data folder. The tuner writes here.
    """
    given = os.environ.get("UPO_CONFIG_DIR")
    if given:
        return Path(given).expanduser().resolve()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "upo" / "conf"


class UserFolder(SearchPathPlugin):
    """Puts the user's folder before ``conf/`` on Hydra's search path, for upo's configurations."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder where there is one; other Hydra applications are left alone."""
        main = [entry.path for entry in search_path.get_path() if entry.provider == "main"]
        ours = [path.removeprefix("file://") for path in main if path] == [str(conf_dir())]
        if ours and user_dir().is_dir():
            search_path.prepend("user", f"file://{user_dir()}")


Plugins.instance().register(UserFolder)


def composed(overrides: Sequence[str], name: str = "train") -> DictConfig:
    """A configuration with these overrides, also within another Hydra application.

    Composed once for each state of the files: many fits of one process ask for few configurations.

    Args:
        overrides: As on the command line, ``hydra.searchpath=[...]`` included.
        name: The primary file.

    Raises:
        InputError: If a folder of the search path does not exist.
    """
    if search_path(overrides):  # folders of others, which may be packages or remote
        return _composed(name, tuple(overrides))
    return copy.deepcopy(_remembered(name, tuple(overrides), _state()))


@lru_cache(maxsize=64)
def _remembered(name: str, overrides: tuple[str, ...], state: object) -> DictConfig:
    return _composed(name, overrides)


def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with _hydra():
        return compose(name, overrides=list(overrides))


def _state() -> frozenset[tuple[str, int, int]]:
    """Path, time of change and size of every file that a configuration may come from."""
    found = set()
    for folder in (conf_dir(), user_dir()):
        for path in folder.rglob("*.yaml"):
            with suppress(FileNotFoundError):  # gone meanwhile
                stat = path.stat()
                found.add((str(path), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)


def choices(group: str, overrides: Sequence[str] = ()) -> list[str]:
    """Names that a group has, in every folder; none where there is no such group.

    Args:
        group: Such as ``estimator`` or ``study/variant``.
        overrides: Those of the run; its ``hydra.searchpath`` counts.

    Raises:
        InputError: If a folder of the search path does not exist.
    """
    given = search_path(overrides)
    with _hydra() as loader:
        return sorted(loader.get_group_options(group, overrides=given))


def chosen(group: str, name: Any, known: Sequence[str]) -> str:
    """The override that chooses one of the known names of a group.

    Raises:
        InputError: If it is none of them.
    """
    if str(name) not in known:
        raise InputError(f"{group}={name} is unknown; known are {', '.join(known)}.")
    return f"{group}={name}"


def check_choices(words: Sequence[str]) -> None:
    """Refuse names that a group does not have, before the first of many runs.

    Args:
        words: Those of the command line that set something.

    Raises:
        InputError: If there is one.
    """
    given = search_path(words)
    with _hydra() as loader:
        for override in OverridesParser.create().parse_overrides(list(words)):
            value, group = override.value(), override.key_or_group
            names = value.list if isinstance(value, ChoiceSweep) else [value]
            known = sorted(loader.get_group_options(group, overrides=given))
            if known and not group.startswith("hydra/"):
                for name in names:
                    text = getattr(name, "text", name)  # quoted or not
                    if isinstance(text, str | int | float):
                        chosen(group, text, known)


def search_path(overrides: Sequence[str]) -> list[str]:
    """Of these overrides, the one that sets ``hydra.searchpath``.

    Raises:
        InputError: If one of its folders does not exist.
    """
    given = [word for word in overrides if word.startswith("hydra.searchpath=")]
    for override in OverridesParser.create().parse_overrides(given):
        folders = override.value()
        for folder in folders if isinstance(folders, list) else []:
            place = urlparse(str(folder))
            if place.scheme in ("", "file") and not Path(place.netloc + place.path).is_dir():
                raise InputError(
                    f"hydra.searchpath names {folder}, which is no folder; give one that holds "
                    "estimator/NAME.yaml, as hydra.searchpath=[file:///FOLDER]."
                )
    return given


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    """Hydra's loader on upo's search path; an application that is under way is left as it was."""
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            yield GlobalHydra.instance().config_loader()
    finally:
        GlobalHydra.instance().hydra = outer
