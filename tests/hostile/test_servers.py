"""Downloads that lie end in one sentence, in time, and leave the folder as it was."""

import importlib.util
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from upo.data import download
from upo.data.download import Source, obtain
from upo.errors import InputError

_SPEC = importlib.util.spec_from_file_location(
    "hostile_servers", Path(__file__).parent / "servers.py"
)
servers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(servers)
CASES = [f"body/{name}" for name in servers.BODIES] + [f"answer/{n}" for n in servers.ANSWERS]
FEW = ["body/encrypted", "body/a bomb", "body/lzma that is none", "body/damaged at 0.3",
       "answer/a length of text", "answer/endless", "answer/drip", "answer/silence"]  # fmt: skip
SLOW = [case for case in CASES if case not in FEW]


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), servers.Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def check(url, case, folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_TIMEOUT", 1.0)  # seconds that stand for a minute
    monkeypatch.setattr(download, "_LARGEST", 2**24)
    toy = Source("Toy", "http://toy.example", f"{url}/{case.replace(' ', '%20')}.zip",
                 {"train.txt": ()})  # fmt: skip
    (folder / "mine.txt").write_text("mine")
    start = time.monotonic()
    with pytest.raises(InputError) as error:
        obtain(toy, folder)
    assert time.monotonic() - start < 10, case
    message = str(error.value)
    assert "; " in message, (case, message)
    assert message.isprintable(), (case, message)
    assert len(message) < 700, (case, message)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"], case


def test_there_are_as_many_as_promised():
    assert len(CASES) >= 40


@pytest.mark.parametrize("case", FEW)
def test_a_lying_download_ends_in_a_sentence(case, url, tmp_path, monkeypatch):
    check(url, case, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW)
def test_every_lying_download_ends_in_a_sentence(case, url, tmp_path, monkeypatch):
    check(url, case, tmp_path, monkeypatch)


def test_the_truth_is_taken(url, tmp_path, monkeypatch):
    monkeypatch.setitem(servers.BODIES, "good", servers.GOOD)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    obtain(Source("Toy", "x", f"{url}/body/good.zip", {"train.txt": ()}), tmp_path)
    assert (tmp_path / "train.txt").read_bytes() == servers.TEXT
