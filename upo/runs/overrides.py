"""Words for Hydra, looked at first: what it would answer at length ends in a sentence here."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from upo.core.arguments import nearest, table
from upo.errors import InputError
from upo.runs.compose import choices, conf_dir
from upo.runs.config import Train
from upo.training.settings import OURS, PASSED, refuse_key

_TRAIN_HELP = """\
Train and measure an estimator on a dataset; a run folder holds results, checkpoints and figures.

  upo train [key=value ...]
  upo train dataset=coat estimator=upo_dr seeds=10
  upo train -m dataset=coat,yahoo estimator=ips,dr_jl
  upo train resume=RUN_DIR

Groups, each with its choices:
{groups}

Keys of a run:
{keys}

Keys of the trainer:
{trainer}

Every other setting has a dotted key, as in dataset.train=FILE or estimator.weighting.p_min=0.1:
  upo train estimator=dr_jl --cfg job -p estimator   prints those of an estimator
  upo train --info defaults-tree                     shows which files made them
  upo train --hydra-help                             lists Hydra's own flags

Exit status: 0 done, 1 wrong input or a failure (one sentence on stderr), 75 stopped by
trainer.max_time, 130 after Ctrl-C, 143 after SIGTERM: resume=RUN_DIR goes on from the last epoch.
python train.py takes the same words.
"""
# flags of Hydra that have a word behind them
_FLAGS = {"--cfg", "-c", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn"}
_FLAGS |= {"--config-path", "-cp", "--experimental-rerun"}
_INFO = {"--info", "-i"}  # which may have one
ABOUT_OVERRIDES = (
    "Other key=value words are settings of a run, as upo train takes them: dataset=coat seeds=10 "
    "estimator.weighting.p_min=0.1. upo train --help lists the groups and their choices; upo train "
    "estimator=NAME --cfg job prints every setting of a run."
)


def prepared(words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them.

    Args:
        words: Overrides, and Hydra's own flags, which stay as they are.

    Raises:
        InputError: If a word has no key or an unknown one, or its text needs quotes.
    """
    found, before = [], ""
    for word in words:
        of_flag = before in _FLAGS or (before in _INFO and "=" not in word)
        if word.startswith(("-", "~")) or of_flag:
            kept: str | None = word
        else:
            kept = _prepared(word)
        found += [] if kept is None else [kept]
        before = word
    return found


def _prepared(word: str) -> str | None:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if not equals:
        raise InputError(
            f"{word!r} is not understood; write key=value, for example dataset=coat (--help lists "
            "the keys)."
        )
    if name in ("hydra.run.dir", "hydra.sweep.dir") and not value.strip("'\" "):
        raise InputError(
            f"{name}= is empty, as from a variable that is not set; name a folder, or leave it "
            "out for a new one."
        )
    if value.strip() in ("null", "None") and _is_group(name):
        return _without_choice(name)
    _check_key(key)
    if name.startswith("trainer."):
        last = name.removeprefix("trainer.").partition(".")[0]
        refuse_key(last)
        standing = OmegaConf.load(conf_dir() / "trainer" / "default.yaml")
        if not key.startswith("+") and last not in standing:
            word = f"++{word}"
    try:
        OverridesParser.create().parse_override(word)
    except HydraException as error:
        quoted = f"{key}={QuotedString(value, Quote.single).with_quotes()}"
        raise InputError(
            f"{word} cannot be read as it stands; if {value} is meant as it is, quote it: "
            f"{shlex.quote(quoted)}"
        ) from error
    return word


def settings_of_runs(words: Sequence[str], command: str, ours: Mapping[str, str]) -> list[str]:
    """Words for the runs that a command makes, less what it decides itself.

    Args:
        words: What its own keys have left.
        command: Its name after ``upo``.
        ours: Settings that it decides, and what to do instead.

    Raises:
        InputError: If a word is a flag, one of those, or no setting of a run.
    """
    for word in words:
        key, equals, value = word.partition("=")
        name = key.lstrip("+~")
        hydras = name.startswith(("hydra.", "hydra/")) and name != "hydra.searchpath"
        if word.startswith("-") or hydras:
            raise InputError(f"upo {command} takes no {word}; --help lists what it takes.")
        if equals and name in ours and (name, value) != ("logger", "none"):
            raise InputError(f"{word} is not for upo {command}: {ours[name]}; leave it out.")
    return prepared(words)


def _without_choice(group: str) -> str | None:
    """``group=null``, which Hydra knows only as a default: nothing to add where it is that.

    Raises:
        InputError: If the group must have a choice.
    """
    if default_choices().get(group, group) is None:
        return None
    raise InputError(f"{group}=null: a choice is needed; known are {', '.join(choices(group))}.")


def _check_key(key: str) -> None:
    """Refuse a key without dots that no run has, also behind a plus.

    Raises:
        InputError: If there is no such key.
    """
    name = key.lstrip("+")
    if not re.fullmatch(r"\w+", name) or _is_group(name):
        return
    known = [each.name for each in fields(Train)]
    if name in known:
        return
    groups = list(default_choices())
    near = nearest(name, [*known, *groups])
    meant = f"did you mean {near}=? K" if near else "k"
    names = dict.fromkeys([*groups, *known])
    raise InputError(f"{name}= is unknown; {meant}nown are {', '.join(names)} (--help).")


def default_choices() -> dict[str, str | None]:
    """Groups of ``train.yaml`` and what is chosen by default."""
    loaded: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "train.yaml"))
    found = {}
    for entry in loaded["defaults"]:
        if isinstance(entry, dict):
            for key, value in entry.items():
                name = str(key).removeprefix("override ").partition("@")[0]
                if not name.startswith("optional "):
                    found[name] = value
    return found


def _is_group(name: str) -> bool:
    return (conf_dir() / name).is_dir()


def train_help(width: int = 100) -> str:
    """What ``upo train --help`` prints: groups with their choices, and a run's own keys."""
    groups = [
        (f"{group}=NAME", f"{', '.join(choices(group))} ({chosen or 'none'})")
        for group, chosen in default_choices().items()
    ]
    line = re.compile(r"(\w+): (.*?)\s+# (.*)")  # train.yaml says what each of its keys means
    text = (conf_dir() / "train.yaml").read_text(encoding="utf-8")
    matches = (line.fullmatch(each) for each in text.splitlines())
    keys = [(f"{m[1]}=", f"{m[3]} ({m[2]})") for m in matches if m]
    trainer = [(f"trainer.{key}=", about) for key, about in {**PASSED, **OURS}.items()]
    return _TRAIN_HELP.format(
        groups=table(groups, width), keys=table(keys, width), trainer=table(trainer, width)
    )
