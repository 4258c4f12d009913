"""Getting a dataset from its official page: checked, and never left half there."""

from __future__ import annotations

import hashlib
import http.client
import lzma
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from upo.core.files import atomic_file
from upo.errors import InputError, visible
from upo.tables.frames import first_line

_BLOCK = 1 << 20  # bytes read at a time
_TIMEOUT = 60.0  # seconds without a byte
_SLOWEST = 2**14  # bytes a second, on average, that a transfer must have after a minute
_LARGEST = 2**31  # bytes of an archive, and of a file in one; KuaiRec has about a third of that
_ENTRIES = 10_000  # of an archive


# encrypted members and unknown compressions raise the last two
_CORRUPT = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError,
    RuntimeError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A zip archive on an official page, and what is taken out of it."""

    name: str
    page: str  # for people
    url: str | None  # None where the terms leave the download to the user
    files: Mapping[str, tuple[str, ...]]  # path in the data folder: SHA-256 values, () for any
    sha256: str | None = None  # of the archive, where it is known


COAT = Source(
    name="Coat",
    page="https://www.cs.cornell.edu/~schnabts/mnar/",
    url="https://www.cs.cornell.edu/~schnabts/mnar/coat.zip",
    files={  # with CRLF as upstream, with LF as in many copies
        "train.ascii": (
            "a87bd9e7eaf3b89f976df3f25d4aa5d5d871be8a00b58947df9e6e015559bd37",
            "f9088c6e95fa9a42e8be6a92fc77252b95b969e34ed1299c611420da68680873",
        ),
        "test.ascii": (
            "de6714ab105a5e0be8166be7fd313901b29f9a09c3bea307901457d1d71847e6",
            "51fa28550f5bedebc6959d0e7b5e242b173c3c8d16317c7e49b89441304504ce",
        ),
        "propensities.ascii": ("a72e3142a413623c4a6b9d20c4f70fcc017e0db67cc3eb242116f69fb8fb9661",),
        "user_item_features/user_features.ascii": (
            "d8f9531b601c54a7272602f8b21fa6cb4652cbf122e35d8615ea9645ebbf1b1f",
            "593b59c63a3f983575d3a770b32158fdfa4e2e4f63aafffdee70d1600ff072f8",
        ),
        "user_item_features/item_features.ascii": (
            "edea8217ec5606779b4d3bf819f7591dc63bcd5194d619e8048c2322d07630b1",
            "72b08cc0766d3e9899231aea90c815b5bb08e07dcfba569d5f182da649099f5a",
        ),
    },
)
YAHOO = Source(
    name="Yahoo! R3",
    page="https://webscope.sandbox.yahoo.com/catalog.php?datatype=r",
    url=None,  # a signed agreement is needed
    files={
        "ydata-ymusic-rating-study-v1_0-train.txt": (),
        "ydata-ymusic-rating-study-v1_0-test.txt": (),
    },
)
KUAIREC = Source(
    name="KuaiRec",
    page="https://kuairec.com",
    url="https://zenodo.org/records/18164998/files/KuaiRec.zip",
    files={"small_matrix.csv": (), "big_matrix.csv": ()},
)
MOVIELENS = Source(
    name="MovieLens 100K",
    page="https://grouplens.org/datasets/movielens/100k/",
    url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    files={
        "u.data": ("06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",),
        "u.item": ("553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",),
        "u.user": ("f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",),
    },
)


def obtain(source: Source, folder: Path) -> None:
    """Fetch the archive and put its files into the folder; what is already there stays.

    Raises:
        InputError: If the terms forbid it, the transfer fails, or a file is not the genuine one.
    """
    if all((folder / name).is_file() for name in source.files):
        return
    if source.url is None:
        raise InputError(
            f"{source.name} cannot be downloaded for you, its terms ask for a signed agreement; "
            f"request it at {source.page}, put {' and '.join(source.files)} into {folder}, and "
            f"leave out dataset.download=true."
        )
    archive = fetch(source.url, source.sha256, folder / Path(source.url).name)
    try:
        with zipfile.ZipFile(archive) as opened:
            if len(opened.infolist()) > _ENTRIES:
                raise zipfile.BadZipFile(f"it has more than {_ENTRIES:,} entries")
            for name, known in source.files.items():
                if not (folder / name).is_file():
                    _extract(opened, name, known, folder, source)
    except _CORRUPT as error:
        raise InputError(
            f"What {source.url} sent is not a whole zip archive ({first_line(error)}); try again "
            f"later or get {source.name} by hand from {source.page}."
        ) from error
    finally:
        archive.unlink(missing_ok=True)


def fetch(url: str, sha256: str | None, target: Path, *, progress: bool = True) -> Path:
    """Download a file; it appears under its name only when complete and genuine.

    Args:
        url: What to get.
        sha256: Its SHA-256 in hexadecimal digits; None leaves only its length to be checked.
        target: Where to put it; a file already there is replaced.
        progress: Whether to draw a bar on standard error.

    Returns:
        The target.

    Raises:
        InputError: If the server, the connection, the checksum or the disk says no.
    """
    again = f"run again to retry, or get it by hand and put what it holds into {target.parent}"

    def transfer(file: IO[bytes]) -> None:
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
                total = _length(response.headers.get("Content-Length"), url, again)
                name = target.name if progress else None
                received = _copy(response.read1, file, total, name, _Pace(url, again))
        except urllib.error.HTTPError as error:
            error.close()
            answer = visible(f"{error.code} {error.reason}", 200)
            raise InputError(f"{url} answered {answer}; {again}.") from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            reason = visible(str(getattr(error, "reason", None) or error), 200)
            raise InputError(f"{url} could not be downloaded ({reason}); {again}.") from error
        except (UnicodeError, LookupError) as error:
            raise InputError(
                f"{url} answered with headers that cannot be read; {again}."
            ) from error
        except (ConnectionError, ssl.SSLError) as error:
            raise InputError(f"{url} broke off ({error}); {again}.") from error
        if total and received != total:
            raise InputError(f"{url} broke off after {received} of {total} bytes; {again}.")

    _write_atomically(target, transfer, sha256, f"{url} sent", again)
    return target


def _extract(
    archive: zipfile.ZipFile, name: str, known: tuple[str, ...], folder: Path, source: Source
) -> None:
    """Take one file out of the archive, wherever in it the folder of the dataset lies."""
    found = [m for m in archive.namelist() if m == name or m.endswith(f"/{name}")]
    if not found:
        raise InputError(
            f"The archive from {source.url} has no {name}; get {source.name} by hand from "
            f"{source.page} and put its files into {folder}."
        )
    member = archive.getinfo(min(found, key=len))
    large = max(member.file_size, 1) > min(_LARGEST, 2000 * max(member.compress_size, 2**10))
    if large:
        raise zipfile.BadZipFile(f"{name} would unpack to {member.file_size:,} bytes")

    def transfer(file: IO[bytes]) -> None:
        with archive.open(member) as opened:  # gives no more than the size that was checked
            _copy(opened.read, file, 0, None, None)

    fix = f"get {source.name} by hand from {source.page}"
    _write_atomically(folder / name, transfer, known, f"{source.url} holds for {name}", fix)


class _Pace:
    """Refuses a transfer that has no end: too large, or slower than anybody would wait for."""

    def __init__(self, url: str, again: str) -> None:
        self._url, self._again, self._start = url, again, time.monotonic()

    def check(self, received: int) -> None:
        if received > _LARGEST:
            raise InputError(
                f"{self._url} sent more than {_LARGEST:,} bytes, more than any of these datasets "
                f"has; {self._again}."
            )
        seconds = time.monotonic() - self._start
        if seconds > _TIMEOUT and received < _SLOWEST * seconds:
            raise InputError(
                f"{self._url} sent {received:,} bytes in {seconds:.0f} seconds, too slow to wait "
                f"for; {self._again}."
            )


def _length(header: str | None, url: str, again: str) -> int:
    """The length that a server announces; 0 for none.

    Raises:
        InputError: If it is none, or too much.
    """
    text = (header or "0").strip()
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(f"{url} announces a length of {visible(text, 60)!r}; {again}.")
    if int(text) > _LARGEST:
        raise InputError(
            f"{url} announces {int(text):,} bytes, more than any of these datasets has; {again}."
        )
    return int(text)


def _copy(
    read: Callable[[int], bytes],
    file: IO[bytes],
    total: int,
    name: str | None,
    pace: _Pace | None,
) -> int:
    received = 0
    while block := read(_BLOCK):
        file.write(block)
        received += len(block)
        if pace is not None:
            pace.check(received)
        if name is not None:
            share = f"{received / total:4.0%} of {total / 2**20:.1f}" if total else received >> 20
            sys.stderr.write(f"\r{name}: {share} MiB")
    if name is not None:
        sys.stderr.write("\n")
    return received


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def _write_atomically(
    target: Path,
    transfer: Callable[[IO[bytes]], None],
    sha256: str | tuple[str, ...] | None,
    what: str,
    fix: str,
) -> None:
    """Write beside the target, check, and move into place; whatever fails leaves nothing behind."""
    expected = (sha256,) if isinstance(sha256, str) else sha256 or ()
    try:
        with atomic_file(target) as file:
            transfer(file)
            digest = _sha256(file)
            if expected and digest not in expected:
                raise InputError(
                    f"What {what} has the SHA-256 {digest}, not {' or '.join(expected)}; {fix}."
                )
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror or error}); fix the folder's "
            f"permissions or free some space, then run again."
        ) from error
