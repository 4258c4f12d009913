"""Servers that lie: what they send in the place of a zip archive of a dataset."""

import contextlib
import io
import time
import zipfile
from http.server import BaseHTTPRequestHandler

TEXT = b"1 2 3\n" * 2000


def archive(files, kind=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return buffer.getvalue()


GOOD = archive({"set/train.txt": TEXT})


def _flag(data, bits):
    """The flags of every member changed, in both places that hold them."""
    data = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            data[at + place] |= bits
            at = data.find(mark, at + 4)
    return bytes(data)


def _method(data, method):
    data = bytearray(data)
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.find(mark)
        data[at + place : at + place + 2] = method.to_bytes(2, "little")
    return bytes(data)


def _size(data, size):
    """The size that the directory declares of the first member."""
    data = bytearray(data)
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(data)


def _damaged(data, at):
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def _many():
    return archive({f"set/{k}": b"" for k in range(10_001)} | {"train.txt": TEXT}, 0)


# what is sent as the body of a sound answer
BODIES = {
    "nothing": b"",
    "a page": b"<html>Please sign in</html>",
    "noise": bytes(range(256)) * 20,
    "half an archive": GOOD[: len(GOOD) // 2],
    "the end of an archive": GOOD[len(GOOD) // 2 :],
    "only a header": GOOD[:30],
    "an empty archive": archive({}),
    "another file": archive({"set/other.txt": TEXT}),
    "a folder of the name": archive({"set/train.txt/": b""}),
    "encrypted": _flag(GOOD, 1),
    "strongly encrypted": _flag(GOOD, 0x41),
    "unknown compression": _method(GOOD, 99),
    "lzma that is none": _method(GOOD, 14),
    "bzip2 that is none": _method(GOOD, 12),
    "deflate that is none": _method(archive({"train.txt": TEXT}, 0), 8),
    "declared huge": _size(GOOD, 2**32 - 2),
    "declared small": _size(GOOD, 5),
    "a bomb": archive({"train.txt": bytes(2**28)}),
    "too many entries": _many(),
    "gzip": b"\x1f\x8b\x08" + bytes(100),
    "tar": b"train.txt".ljust(257, b"\0") + b"ustar" + bytes(250),
    **{f"damaged at {at}": _damaged(GOOD, at) for at in (0.3, 0.45, 0.97)},
}

# what is said before the body: status, headers, then what is sent
ANSWERS = {
    "no length, cut": (200, {}, GOOD[:50]),
    "a longer length": (200, {"Content-Length": str(len(GOOD) + 9)}, GOOD),
    "a shorter length": (200, {"Content-Length": "40"}, GOOD),
    "a length of text": (200, {"Content-Length": "many"}, GOOD),
    "a negative length": (200, {"Content-Length": "-1"}, GOOD),
    "a length of a planet": (200, {"Content-Length": "9" * 18}, GOOD),
    "a length without end": (200, {"Content-Length": "9" * 4000}, GOOD),
    "a length of another script": (
        200,
        {"Content-Length": "\u0663".encode().decode("latin-1")},
        b"",
    ),
    "chunks that are none": (200, {"Transfer-Encoding": "chunked"}, b"zz\r\nhello"),
    "a chunk of a planet": (200, {"Transfer-Encoding": "chunked"}, b"ffffffffffff\r\nhello"),
    "not found": (404, {}, b""),
    "a reason that turns": (500, {"X": "y"}, b""),
    "teapot": (418, {}, b""),
    "round and round": (302, {"Location": "/answer/round and round".replace(" ", "%20")}, b""),
    "to a file": (302, {"Location": "file:///etc/hostname"}, b""),
    "to nowhere": (302, {"Location": "http://127.0.0.1:9/"}, b""),
    "compressed on the way": (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b" + bytes(50)),
    "no headers at all": None,
    "a header without end": (200, {"X": "x" * 70_000}, b""),
    "endless": "endless",
    "drip": "drip",
    "silence": "silence",
}


class Handler(BaseHTTPRequestHandler):
    """Answers ``/body/NAME`` and ``/answer/NAME``."""

    def do_GET(self):
        _, kind, name = self.path.split("/", 2)
        name = name.removesuffix(".zip").replace("%20", " ")
        with contextlib.suppress(OSError):  # the other side had heard enough
            self._body(name) if kind == "body" else self._answer(ANSWERS[name])
        self.close_connection = True

    def _body(self, name):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODIES[name])))
        self.end_headers()
        self.wfile.write(BODIES[name])

    def _answer(self, answer):
        if answer is None:
            self.wfile.write(b"\xff\xfe\x00 hello\r\n\r\n")
            return
        if isinstance(answer, tuple):
            status, headers, body = answer
            self.send_response(status, "a\u202eb".encode().decode("latin-1"))
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.end_headers()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if answer == "endless":
                self.wfile.write(bytes(2**16))
            elif answer == "drip":
                self.wfile.write(b"x")
                time.sleep(0.02)
            else:
                time.sleep(0.05)
            self.wfile.flush()

    def log_message(self, *args):
        pass
