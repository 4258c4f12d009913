"""Where runs and sweeps write: folders that are nobody else's, with names that any disk takes.

``conf/train.yaml`` uses these as resolvers. A resolved value is kept with its configuration, so a
job of a sweep, also in a process of its own, finds the folder of its sweep.
"""

import hashlib
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from omegaconf import OmegaConf

from upo.errors import InputError

LONGEST = 120  # characters of a name that stands for the settings of a job
_ODD = re.compile(r"[^\w=,.+@:\[\]-]|^\.+")
_claimed: list[str] = []  # by this process


def new_folder(path: str) -> str:
    """A folder that was not there: ``path``, or ``path_2``, and so on where others were first.

    Making it is what claims it, so of several runs each gets one.

    Raises:
        InputError: If it cannot be made.
    """
    wanted = Path(path)
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}_{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            _claimed.append(str(folder))
            return str(folder)
    except OSError as error:
        raise InputError(
            f"the run folder {wanted} cannot be made ({error.strerror or error}); choose another "
            "with hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER with -m."
        ) from error
    raise AssertionError  # numbers do not end


def folder_name(settings: str, number: str) -> str:
    """A folder's name for the settings of a job: one folder, and short enough for any disk.

    Args:
        settings: As Hydra joins them, ``key=value,key=value``.
        number: Of the job, which stands for no settings.

    >>> folder_name("estimator=ips,seeds=3", "0")
    'estimator=ips,seeds=3'
    >>> folder_name("dataset.train=/home/me/log.csv", "0")
    'dataset.train=_home_me_log.csv-0cf25688'
    """
    if not settings:
        return number
    name = _ODD.sub("_", settings)
    if name == settings and len(name.encode()) <= LONGEST:
        return name
    if len(name) > LONGEST:  # the last word of a key says most
        name = re.sub(r"(?:^|(?<=,))[+\w.@-]*\.(\w+=)", r"\1", name)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return f"{name.encode()[:LONGEST].decode(errors='ignore')}-{digest}"


def given_folder(words: Sequence[str]) -> str | None:
    """The folder that words for Hydra name, or the last that was made, for sentences."""
    keys = ("hydra.run.dir=", "hydra.sweep.dir=")
    named = [word.partition("=")[2].strip("'") for word in words if word.startswith(keys)]
    found = named or _claimed
    return found[-1] if found else None


OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
