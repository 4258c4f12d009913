"""The command line and its report: one page that needs no other file, and sentences."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from auditing_tables import true_table, with_columns
from processes import command

import upo.audit
from upo.audit.__main__ import main as audit_main
from upo.audit.report import _histogram
from upo.audit.segments import sentence
from upo.errors import InputError

NASTY = "<script>alert('x')</script> & \"$a_b$\""


@pytest.fixture(scope="module")
def table():
    frame = with_columns(true_table(1), 1, odds=2.0)
    genre = np.array([NASTY, "jazz", "日本"])[frame.item % 3]
    return frame.assign(user="u" + frame.user.astype(str), **{"genre<b>": genre})


@pytest.fixture(scope="module")
def folder(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "deep" / "out"
    upo.audit(table, out=folder)
    return folder


class Page(HTMLParser):
    """Collects tags, links to elsewhere and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [v for k, v in values.items() if k in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        if tag == "img":
            assert values["alt"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_is_whole_and_needs_nothing_else(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []  # every tag is closed, in order
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "script" not in page.tags
    assert not re.search(r"url\(|@import|https?://", text)
    assert page.tags.count("img") == 4
    assert 'name="viewport"' in text


def test_texts_of_the_table_are_escaped(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert NASTY not in text
    assert NASTY in Page(text).text


def test_the_page_says_what_the_audit_found(folder, table):
    audit = upo.audit(table)
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    assert audit.verdict in text
    for found in audit.findings.sentence[:20]:
        assert found in text
    assert f"{audit.bins[0].ece:.4f}" in text
    assert f"{audit.clips.effective_sample_size[0]:,.0f}" in text


def test_the_tables_are_written_and_nothing_else(folder, table):
    names = {path.name for path in folder.iterdir()}
    tables = ("findings", "tests", "calibration", "balance", "adversary", "clips")
    assert names == {"report.html", *(f"{name}.csv" for name in tables)}
    assert len(pd.read_csv(folder / "calibration.csv")) == 2
    assert len(pd.read_csv(folder / "tests.csv")) > 100
    findings = pd.read_csv(folder / "findings.csv")
    assert findings.sentence.tolist() == upo.audit(table).findings.sentence.tolist()


def test_the_page_says_how_it_was_made_and_what_to_do(folder):
    text = Page((folder / "report.html").read_text(encoding="utf-8")).text
    assert "Made on 20" in text
    assert "propensity propensity;" in text
    assert "p_min=none" in text
    assert "Wrong by a feature: let the propensity read it: upo.Propensity('fm'" in text
    assert "What to do next" in text


def test_a_finding_shows_what_is_tested_where_rows_and_pairs_disagree():
    row = {"where": "user 7", "observed": 435.0, "expected": 430.0, "difference": 0.012}
    row |= {"rows_observed": 435.0, "rows_expected": 322.0, "z": 7.2, "p_adjusted": 1e-9}
    assert sentence(SimpleNamespace(**row)) == (
        "user 7: among the rows of the table observed 435, expected 322 (+35 %), z = +7.2, "
        "adjusted p < 1e-6"
    )
    row |= {"rows_expected": 429.0}
    assert "user 7: observed 435, expected 430 (+1 %)" in sentence(SimpleNamespace(**row))


def test_no_clip_is_shaded_that_nobody_gave_and_bins_are_alike(table):
    for p_min, clips in ((None, 0), (0.05, 1)):
        axes = _histogram(upo.audit(table.head(2000), p_min=p_min)).axes[0]
        shaded = [line for line in axes.lines if "clipped below" in str(line.get_label())]
        assert len(shaded) == clips
        edges = next(patch for patch in axes.patches if hasattr(patch, "get_data"))
        wide = np.diff(np.log(edges.get_data().edges))
        np.testing.assert_allclose(wide, wide[0])


def test_an_audit_that_finds_nothing_says_so():
    page = upo.audit(with_columns(true_table(0), 0)).to_html(title="A & B")
    assert "What to do next" not in page
    assert "Nothing was found" in page
    assert "<title>A &amp; B</title>" in page
    assert 'class="verdict"' in page


def test_a_folder_that_cannot_be_written(table, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        upo.audit(table, out=tmp_path / "file")


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.csv.gz", "pairs.tsv", "pairs.parquet"])
def test_the_command_reads_files(name, table, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("upo.tables.csv_blocks.BYTES", 4096)
    table = table.assign(note='a "b",\n\r\nu1,1,1,0.5\n')  # not read
    path = tmp_path / name
    if name.endswith("parquet"):
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if name.endswith("tsv") else ",")
    arguments = [f"pairs={path}", f"out={tmp_path / 'out'}", "p_min=0.1", "features=region"]
    audit_main(arguments)
    printed = capsys.readouterr().out
    assert "1. users with region=B: observed" in printed
    assert printed.endswith(f"written: {tmp_path / 'out' / 'report.html'}\n")


def test_the_command_ends_in_one_sentence(tmp_path):
    (tmp_path / "bad.csv").write_text("user,item,observed,propensity\na,b,1,0.5\na,c,0,1.5\n")
    done = command("-m", "upo.audit", "pairs=bad.csv", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: pairs: propensity must lie in \(0, 1\].*\n", done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


FILES = {
    "missing": (None, "not a file"),
    "empty": (b"", "cannot be read"),
    "no rows": (b"user,item,observed,propensity\n", "no rows"),
    "short row": (b"user,item,observed,propensity\na,b,1\n", "cannot be read"),
    "other encoding": (b"user,item,observed,propensity\n\xff\xfe,b,1,0.5\n", "cannot be read"),
    "text": (b"user,item,observed,propensity\na,b,yes,0.5\nb,b,no,0.5\n", "must hold numbers"),
    "empty id": (b"user,item,observed,propensity\n,b,1,0.5\nb,b,0,0.5\n", "row 1 has no user"),
}


@pytest.mark.parametrize("name", FILES)
def test_wrong_files_end_in_one_sentence(name, tmp_path):
    content, fragment = FILES[name]
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        audit_main([f"pairs={path}", f"out={tmp_path / 'out'}"])
    assert fragment in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["out=x"], "pairs= is missing"),
        (["pairs=x.csv", "colour=red"], "unknown|not a file"),
        (["seed=many", "pairs=x.csv"], "seed must be a whole number"),
        (["pairs=x.xlsx"], "not a file"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(arguments, fragment):
    with pytest.raises(InputError, match=fragment):
        audit_main(arguments)


def test_a_cut_parquet_file(table, tmp_path):
    path = tmp_path / "pairs.parquet"
    table.to_parquet(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read"):
        audit_main([f"pairs={path}"])
