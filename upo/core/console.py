"""The outermost layer of every command: one sentence and an exit status that tells the truth.

Imports nothing heavy, so that a signal finds its handler before torch has been read.
"""

import errno
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from upo.errors import LONGEST, InputError, UnfinishedError, visible

WRONG = 1  # wrong input, or something failed
UNFINISHED = 75  # sysexits' EX_TEMPFAIL: the same again will go on
INTERRUPTED = 128 + int(signal.SIGINT)  # what shells expect
TERMINATED = 128 + int(signal.SIGTERM)
_SMALLER = "try fewer seeds or smaller batches, or a machine with more memory"


class Terminated(BaseException):
    """SIGTERM has come: raised where the program stands, so that files are left whole."""


_requested = threading.Event()


def command(function: Callable[[], Any]) -> NoReturn:
    """Run a command and leave the process with its status: what it returns, or 0."""
    raise SystemExit(sentences(function) or 0)


def sentences(function: Callable[[], Any]) -> Any:
    """Call a function; whatever a person can fix ends in one sentence and an exit status.

    Raises:
        SystemExit: With 1 for wrong input, 75 for a run that stopped at its time limit, both with
            the sentence as a note; 130 after SIGINT, 143 after SIGTERM.
    """
    try:
        with terminable(), signals_first():
            return function()
    except (KeyboardInterrupt, Terminated) as stop:
        raise _stopped(stop) from None
    except UnfinishedError as stop:
        raise _ended(UNFINISHED, str(stop)) from None
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + int(signal.SIGPIPE)) from None
    except Exception as error:
        sentence = explained(error)
        if sentence is None:
            raise  # a fault of ours: its traceback is wanted
        raise _ended(WRONG, sentence) from None


def explained(error: BaseException) -> str | None:
    """What a person needs to know of an error that is theirs or their machine's; otherwise None."""
    if isinstance(error, InputError | HydraException | OmegaConfBaseException):
        return str(cause(error)) or type(error).__name__
    if isinstance(cause(error), InputError):
        return str(cause(error))
    if isinstance(error, MemoryError):  # Arrow's, too
        return f"memory ran out ({_first_line(error)}); {_SMALLER}."
    if isinstance(error, OSError):
        return _of_file(error)
    text = _first_line(error)
    kind = f"{type(error).__module__}.{type(error).__name__}"
    if kind == "lightning.fabric.utilities.exceptions.MisconfigurationException":
        return text
    if kind == "torch.OutOfMemoryError" or "can't allocate memory" in text:
        return f"memory ran out ({text}); {_SMALLER}."
    return None


def cause(error: BaseException) -> BaseException:
    """The innermost cause that is meant for a person."""
    cause: BaseException | None = error
    found = error
    while cause is not None:
        if isinstance(cause, InputError):
            found = cause
        if isinstance(cause, MissingConfigException) and cause.options:
            group, _, name = str(cause.missing_cfg_file).rpartition("/")
            found = InputError(
                f"{group}={name} is unknown; known are {', '.join(sorted(cause.options))}."
            )
        below = cause.__cause__
        merged = "Error merging override "  # Hydra's, which leaves out why
        if isinstance(below, OmegaConfBaseException) and str(cause).startswith(merged):
            found = InputError(f"{str(cause).removeprefix(merged)}: {_first_line(below)}.")
        cause = below
    return found


@contextmanager
def advice(text: str) -> Iterator[None]:
    """What to do next if a signal ends the block: the sentence ends with it."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note(text)
        raise


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM within the block into ``Terminated``, as Python does SIGINT."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    before = signal.getsignal(signal.SIGTERM)
    if before in (_terminate, signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        _requested.clear()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait for the end of a short block.

    For code in C++ that calls Python, such as the writer of ``torch.save``: an exception that a
    handler raises in there is turned into another, or ends the process in ``abort``.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []
    ours = {n: handler for n, handler in before.items() if callable(handler)}
    for number in ours:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


@contextmanager
def signals_first() -> Iterator[None]:
    """Let a signal out of the block as itself, where an error that was raised over it hides it.

    A library's tidying fails over an interrupt, or takes it for a damaged file.
    """
    try:
        yield
    except Exception as error:
        behind = _signal_behind(error)
        if behind is None:
            raise
        raise behind from None


def go_on() -> None:
    """Raise ``Terminated`` if SIGTERM came where Python could not raise, as in a destructor."""
    if _requested.is_set():
        raise Terminated


def _terminate(_: int, __: FrameType | None) -> None:
    if not _requested.is_set():  # a second signal must not break into the tidying
        _requested.set()
        raise Terminated


def first_process() -> bool:
    """Whether this process writes and prints for its run: the first, under any launcher.

    Asked of Lightning, if that has been loaded: before, there is one process.
    """
    module = sys.modules.get("lightning.fabric.utilities.rank_zero")
    return module is None or getattr(module.rank_zero_only, "rank", 0) == 0


def say(text: str) -> None:
    """Print for the person at the terminal, once however many processes run."""
    if first_process():
        lines = (visible(line, 10_000) for line in text.split("\n"))
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()


def quiet() -> None:
    """Silence what libraries say about themselves."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", module=r"torchmetrics\..*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)


def _ended(status: int, sentence: str) -> SystemExit:
    line = one_line(sentence)
    _complain(f"error: {line}")
    stop = SystemExit(status)
    stop.add_note(line)
    return stop


def _signal_behind(error: BaseException) -> KeyboardInterrupt | Terminated | None:
    """The signal in whose handling an error was raised: a library's tidying may fail over it."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        link = chain.pop()
        if link is None or id(link) in seen:
            continue
        if isinstance(link, KeyboardInterrupt | Terminated):
            return link
        seen.add(id(link))
        chain += [link.__cause__, link.__context__]
    return None


def _stopped(stop: KeyboardInterrupt | Terminated) -> SystemExit:
    """The end of a process that a signal stops, once it has said so."""
    interrupted = isinstance(stop, KeyboardInterrupt)
    if first_process():
        how = "interrupted" if interrupted else "stopped by SIGTERM"
        notes = getattr(stop, "__notes__", [])
        after = f"; {notes[0]}" if notes else ""
        _complain(f"error: {how}; files that were written are complete{after}.")
    return SystemExit(INTERRUPTED if interrupted else TERMINATED)


def _of_file(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    where = error.filename2 or error.filename
    names = f"{where}: {error.strerror}" if where is not None else error.strerror
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        names += "; free space there or choose another folder, then resume"
    return f"{names}."


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def one_line(text: str) -> str:
    """Text on one line, with control characters and direction marks as escapes, not too long."""
    return visible(" ".join(text.split()), LONGEST)


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
