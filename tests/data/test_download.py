import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from upo.data.download import Source, fetch, obtain
from upo.errors import InputError

CONTENT = bytes(range(256)) * 20
SHA = hashlib.sha256(CONTENT).hexdigest()


def archive(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
    return buffer.getvalue()


PAGES = {
    "/good": CONTENT,
    "/good.zip": archive({"set/train.txt": "1 2 3", "set/sub/x.txt": "4", "set/README": "hello"}),
    "/poor.zip": archive({"set/train.txt": "1 2 3"}),
    "/page.zip": b"<html>Please sign in</html>",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.hits.append(self.path)
        if self.path == "/broken":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
        elif self.path in PAGES:
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGES[self.path])))
            self.end_headers()
            self.wfile.write(PAGES[self.path])
        else:
            self.send_error(404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.hits = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()
        thread.join()


def test_a_good_transfer(server, tmp_path, capsys):
    target = fetch(f"{server.url}/good", SHA, tmp_path / "new" / "file.bin")
    assert target.read_bytes() == CONTENT
    assert [p.name for p in target.parent.iterdir()] == ["file.bin"]
    assert "file.bin: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("page", "sha256", "sentence"),
    [
        ("good", "0" * 64, f"good sent has the SHA-256 {SHA}, not 0+; run again"),
        ("broken", SHA, f"broke off after 1000 of {len(CONTENT)} bytes; run again to retry"),
        ("broken", None, "broke off after 1000"),
        ("nothing", SHA, "answered 404 Not Found; run again to retry, or get it by hand"),
    ],
)
def test_a_failed_transfer_leaves_things_as_they_were(server, tmp_path, page, sha256, sentence):
    target = tmp_path / "file.bin"
    for before in ([], ["file.bin"]):
        with pytest.raises(InputError, match=sentence):
            fetch(f"{server.url}/{page}", sha256, target, progress=False)
        assert [p.name for p in tmp_path.iterdir()] == before
        target.write_text("older")
    assert target.read_text() == "older"


def test_no_server(tmp_path, server):
    url = server.url.rsplit(":", 1)[0] + ":9/x"  # the discard port: nothing listens
    with pytest.raises(InputError, match=r"could not be downloaded .*refused"):
        fetch(url, None, tmp_path / "x", progress=False)


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match=r"taken.x cannot be written"):
        fetch(f"{server.url}/good", SHA, tmp_path / "taken" / "x", progress=False)


def source(server, page, **files):
    files = {name.replace("__", "/") + ".txt": known for name, known in files.items()}
    return Source("Toy", "http://toy.example", f"{server.url}/{page}", files)


def test_obtain_takes_out_what_is_missing(server, tmp_path):
    known = (hashlib.sha256(b"1 2 3").hexdigest(),)
    toy = source(server, "good.zip", train=known, sub__x=())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.txt").write_text("mine")
    obtain(toy, tmp_path)
    assert (tmp_path / "train.txt").read_text() == "1 2 3"
    assert (tmp_path / "sub" / "x.txt").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sub", "train.txt"]
    obtain(toy, tmp_path)
    assert server.hits == ["/good.zip"]  # not asked twice


@pytest.mark.parametrize(
    ("page", "known", "sentence"),
    [
        (
            "good.zip",
            ("0" * 64,),
            r"good.zip holds for train.txt has the SHA-256 .*; get Toy by hand",
        ),
        ("poor.zip", (), r"poor.zip has no sub/x.txt; get Toy by hand from http://toy.example"),
        ("page.zip", (), "is not a whole zip archive"),
    ],
)
def test_obtain_refuses_what_is_not_genuine(server, tmp_path, page, known, sentence):
    with pytest.raises(InputError, match=sentence):
        obtain(source(server, page, train=known, sub__x=()), tmp_path)
    assert {p.name for p in tmp_path.iterdir()} <= {"train.txt"}  # whole and genuine, or absent
    if known:
        assert not list(tmp_path.iterdir())


def test_obtain_where_the_terms_forbid_it(tmp_path):
    toy = Source("Toy", "http://toy.example", None, {"a.txt": (), "b.txt": ()})
    with pytest.raises(InputError, match=r"request it at http://toy.example, put a.txt and b.txt"):
        obtain(toy, tmp_path)
