import os
import sys

import matplotlib as mpl
import pytest

from upo import figures
from upo.errors import InputError
from upo.figures.style import RC, styled


def draw(title="A figure"):
    return figures.curves([0, 1, 2], {"loss": [3, 2, 1]}, title=title, ylabel="loss")


def test_same_figure_same_bytes_and_no_leftovers(tmp_path):
    first = figures.save(draw(), tmp_path / "new" / "a.png")
    second = figures.save(draw(), tmp_path / "new" / "b.png")
    assert first.read_bytes() == second.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.png", "b.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = figures.save(draw(), tmp_path / "a.png")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"a\.png cannot be written \(No space left"):
        figures.save(draw(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another output folder"):
        figures.save(draw(), tmp_path / "file" / "a.png")
    with pytest.raises(InputError, match=r"ends in \.png"):
        figures.save(draw(), tmp_path / "a.pdf")


def test_titles_are_literal(check):
    check(draw("a $x^ $ title_1"), "a $x^ $ title_1")


def test_settings_of_the_user_neither_matter_nor_change(tmp_path):
    plain = figures.save(draw(), tmp_path / "plain.png").read_bytes()
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30}):
        assert figures.save(draw(), tmp_path / "user.png").read_bytes() == plain
        assert mpl.rcParams["font.size"] == 30
    with styled():
        assert mpl.rcParams["savefig.dpi"] == RC["savefig.dpi"]


def test_pyplot_stays_out(check):
    had = "matplotlib.pyplot" in sys.modules
    check(draw())
    assert ("matplotlib.pyplot" in sys.modules) == had
