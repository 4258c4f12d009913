"""Command lines of ``key=value`` words, described by a dataclass: parsed, checked, and explained.

A command is a dataclass of its keys, each made by ``argument``; what ``--help`` prints and what is
refused both follow from it.
"""

import difflib
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from upo.errors import InputError

T = TypeVar("T")
HELP = ("-h", "--help", "help")
STATUS = (
    "Exit status: 0 done, 1 wrong input or a failure (one sentence on stderr), 130 after Ctrl-C, "
    "143 after SIGTERM; docs/commands.md has all of them."
)
_WORDS = {"true": True, "false": False}


def argument(
    about: str,
    *,
    default: Any = MISSING,
    value: str = "TEXT",
    must: str | None = None,
    choices: Sequence[str] = (),
) -> Any:
    """A key of a command.

    Args:
        about: What it means, for ``--help``.
        default: Its value where it is not given; without one it must be.
        value: What ``--help`` writes after ``key=``.
        must: ``file`` or ``folder`` for a path that has to be one already.
        choices: The words that are allowed; of a list, each.
    """
    metadata = {"about": about, "value": value, "must": must, "choices": tuple(choices)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Command(Generic[T]):
    """A command and its keys.

    Attributes:
        name: Its name after ``upo``.
        about: What it does, on one line.
        kind: Dataclass of its keys.
        usage: Examples of the command, without its name.
        rest: What other words are, for ``--help``; None where there may be none.
        notes: Further paragraphs of ``--help``.
        module: Where ``python -m`` finds it, if not ``upo.NAME``.
    """

    name: str
    about: str
    kind: type[T]
    usage: tuple[str, ...]
    rest: str | None = None
    notes: tuple[str, ...] = ()
    module: str = ""

    def parse(self, words: Sequence[str]) -> tuple[T, list[str]]:
        """The keys as the dataclass, and the other words in their order.

        ``--help`` prints and ends the process.

        Raises:
            InputError: If a word is unknown, repeated, missing or of the wrong type.
        """
        if any(word in HELP for word in words):
            sys.stdout.write(self.help())
            raise SystemExit(0)
        known = _fields(self.kind)
        types = get_type_hints(self.kind)
        values: dict[str, Any] = {}
        rest = []
        for word in words:
            key, equals, text = word.partition("=")
            if not equals or key not in known:
                if self.rest is None:
                    raise unknown(word, known, f"upo {self.name}")
                rest.append(word)
            elif key in values:
                raise InputError(f"{key} is given more than once; keep one.")
            else:
                values[key] = _value(key, text, types[key], known[key])
        for name, each in known.items():
            if name not in values and each.default is MISSING:
                example = f"upo {self.name} {self.usage[0]}"
                raise InputError(f"{name}= is missing; write {example} (--help lists all keys).")
        return self.kind(**values), rest

    def help(self) -> str:
        """What ``--help`` prints."""
        width = min(shutil.get_terminal_size((100, 24)).columns, 100)
        rows = [_explained(name, each) for name, each in _fields(self.kind).items()]
        parts = [
            f"{self.about}.",
            "\n".join(f"  upo {self.name} {example}" for example in self.usage),
            table(rows, width),
        ]
        if self.rest is not None:
            parts.append(textwrap.fill(self.rest, width))
        parts += [textwrap.fill(note, width) for note in self.notes]
        same = f"python -m {self.module or f'upo.{self.name}'} takes the same words."
        parts.append(textwrap.fill(f"{STATUS} {same}", width))
        return "\n\n".join(parts) + "\n"


def table(rows: Iterable[tuple[str, str]], width: int = 100) -> str:
    """Words and their meanings in two columns."""
    rows = list(rows)
    first = min(max((len(word) for word, _ in rows), default=0), 26) + 2
    lines = []
    for word, about in rows:
        text = textwrap.wrap(about, max(width - first - 2, 30)) or [""]
        if len(word) >= first:
            lines.append(f"  {word}")
            word = ""
        lines.append(f"  {word:<{first}}{text[0]}".rstrip())
        lines += [f"  {'':<{first}}{line}" for line in text[1:]]
    return "\n".join(lines)


def unknown(word: str, known: Iterable[str], where: str) -> InputError:
    """The refusal of a word that is not ``key=value`` with a known key."""
    names = list(known)
    key, equals, value = word.partition("=")
    near = nearest(key, names)
    if not equals:
        return InputError(
            f"{word!r} is not understood; {where} takes key=value words, where the keys are "
            f"{', '.join(names)} (--help explains them)."
        )
    meant = f"did you mean {near}={value}? K" if near else "k"
    return InputError(
        f"{key}= is not understood by {where}; {meant}nown are {', '.join(names)} (--help "
        "explains them)."
    )


def nearest(key: str, known: Iterable[str]) -> str | None:
    """The known key that a misspelt one was meant to be, if one is near."""
    return next(iter(difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)), None)


def _fields(kind: type) -> dict[str, Field[Any]]:
    return {each.name: each for each in fields(kind)}


def _explained(name: str, each: Field[Any]) -> tuple[str, str]:
    default, about, choices = each.default, each.metadata["about"], each.metadata["choices"]
    if choices:
        about += f": {', '.join(choices)}"
    if default is MISSING:
        about += " (must be given)"
    elif default is not None:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        about += f" ({shown.lower() if isinstance(default, bool) else shown})"
    return f"{name}={each.metadata['value']}", about


def _value(key: str, text: str, kind: Any, each: Field[Any]) -> Any:
    """A word as what the annotation of its field says."""
    choices = each.metadata["choices"]
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if type(None) in kinds and text in ("null", ""):
        return None
    if bool in kinds:
        if text.lower() not in _WORDS:
            raise InputError(f"{key} must be true or false, got {text!r}; fix it.")
        return _WORDS[text.lower()]
    for number, name in ((int, "a whole number"), (float, "a number")):
        if number in kinds:
            try:
                return number(text)
            except ValueError as error:
                raise InputError(f"{key} must be {name}, got {text!r}; fix it.") from error
    if any(getattr(k, "__origin__", None) is tuple for k in kinds):
        return _list(key, text, choices)
    if not text:
        raise InputError(f"{key} is empty; give a value or leave it out.")
    if choices and text not in choices:
        raise InputError(f"{key} must be {_either(choices)}, got {text!r}; fix it.")
    return _path(key, text, each.metadata["must"]) if Path in kinds else text


def _list(key: str, text: str, choices: Sequence[str]) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.strip("[]").split(",") if name.strip())
    if not names:
        raise InputError(f"{key}={text} names nothing; write {key}=A,B or leave it out.")
    for name in names:
        if choices and name not in choices:
            near = nearest(name, choices)
            hint = f" did you mean {near}?" if near else ""
            raise InputError(
                f"{key}={text}: {name!r} is unknown;{hint} known are {', '.join(choices)}."
            )
    return names


def _path(key: str, text: str, must: str | None) -> Path:
    path = Path(text)
    if must == "file" and not path.is_file():
        raise InputError(f"{key}={text} is not a file; give the path of one.")
    if must == "folder" and not path.is_dir():
        raise InputError(f"{key}={text} is not a folder; give the path of one.")
    return path


def _either(choices: Sequence[str]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)
