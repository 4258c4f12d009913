"""Every notebook runs from top to bottom, and is committed without what it printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import command

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
# a process of its own: the suite turns warnings into errors, also those of the kernel's libraries
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""


def cells(path):
    return [c for c in json.loads(path.read_text(encoding="utf-8"))["cells"] if c["source"]]


def test_there_are_notebooks():
    assert {"theory", "four_metrics"} <= {path.stem for path in NOTEBOOKS}


SMALL = {"UPO_NOTEBOOK_SMALL": "1", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_small_settings(path, tmp_path):
    """In a shell without a kernel, which would have its imports to make."""
    env = SMALL | {"IPYTHONDIR": str(tmp_path / "ipython")}
    done = command("tests/executed.py", str(path), cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    kinds = set((tmp_path / "kinds").read_text().split())
    assert kinds & {"image/png", "text/html"}, "a narrative shows a figure or a table"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_a_kernel(path, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        cwd=tmp_path,
        env=os.environ | SMALL | {"IPYTHONDIR": str(tmp_path / "ipython")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    code = [c for c in cells(tmp_path / "executed.ipynb") if c["cell_type"] == "code"]
    assert all(c["execution_count"] for c in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
        assert cell["metadata"] == {}
    assert cells(path)[0]["cell_type"] == "markdown"
