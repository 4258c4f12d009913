"""A copy of what a program prints, in a file: for those who come when the terminal is gone."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

LOG = "train.log"  # in a run folder


class _Copied:
    """A stream whose lines are also written into a file; of a bar, the last state alone."""

    def __init__(self, stream: TextIO, file: IO[bytes]) -> None:
        self._stream, self._file = stream, file
        self._line = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write on, and note the lines that are complete."""
        written = self._stream.write(text)
        *whole, self._line = (self._line + text).split("\n")
        self._line = self._line[self._line.rfind("\r") + 1 :]
        self.note("".join(line.rstrip("\r").rpartition("\r")[2] + "\n" for line in whole))
        return written

    def finish(self) -> None:
        """Note a line that was not ended."""
        if self._line:
            self.note(self._line + "\n")

    def note(self, text: str) -> None:
        """Write into the file alone."""
        with suppress(OSError):  # a full disk ends the run where results are written
            self._file.write(text.encode(errors="backslashreplace"))


@contextmanager
def copied_to(path: Path) -> Iterator[None]:
    """Append to ``path`` what is printed within the block, and the traceback of what ends it.

    Raises:
        OSError: If the file cannot be opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        before = sys.stdout, sys.stderr
        copies = [_Copied(stream, file) for stream in before]
        sys.stdout, sys.stderr = copies
        try:
            yield
        except Exception:
            copies[0].note(traceback.format_exc())
            raise
        finally:
            sys.stdout, sys.stderr = before
            for copy in copies:
                copy.finish()
