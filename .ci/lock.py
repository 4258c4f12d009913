"""Lock files: every package of an environment, with the SHA-256 of the file that is installed.

``python .ci/lock.py`` writes them for the platform that runs this: ``requirements-train.lock`` has
what training needs, ``requirements.lock`` the tools of developers besides, and
``requirements-lenskit.lock`` what lies over both for the tests with LensKit. ``--fits`` asks
whether they apply here; if not, it says why in one line and exits with 1.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN, ALL = ROOT / "requirements-train.lock", ROOT / "requirements.lock"
OVER = ROOT / "requirements-lenskit.lock"
HERE = f"{sysconfig.get_platform()}, CPython {sys.version_info[0]}.{sys.version_info[1]}"
HEAD = """\
# {what} with LOCKED=1, by `make lock` from {source}.
# For: {here}
"""
PIP = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]


def resolved(*what: str, pins: str) -> dict[str, str]:
    """What pip would install into an empty environment: a line of a lock file by name."""
    with tempfile.TemporaryDirectory() as folder:
        report, constraints = Path(folder) / "report.json", Path(folder) / "constraints.txt"
        constraints.write_text(pins)
        constraint = ["--constraint", str(constraints)]
        subprocess.run([*PIP, "--report", str(report), *constraint, *what], check=True)
        entries = json.loads(report.read_text())["install"]
    lines = {}
    for entry in entries:
        name, version = (entry["metadata"][key] for key in ("name", "version"))
        if name != "upo":
            digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
            lines[name.lower()] = f"{name.lower()}=={version} --hash=sha256:{digest}\n"
    return lines


def beside(everything: dict[str, str]) -> list[str]:
    """Lines of what LensKit needs and the other files lack, or have in another version."""
    own = (ROOT / "constraints-lenskit.txt").read_text()
    other = {line.split("==")[0] for line in own.split()}
    pins = [line.split()[0] for name, line in everything.items() if name not in other]
    found = resolved("lenskit", pins="\n".join([own, *pins]))
    return [line for name, line in found.items() if everything.get(name) != line]


def misfit() -> str | None:
    """Why the lock files do not apply here, if they do not."""
    text = TRAIN.read_text()
    theirs = next(x for x in text.splitlines() if x.startswith("# For: "))[len("# For: ") :]
    if theirs != HERE:
        return f"the lock files are for {theirs}, and this is {HERE}"
    # the build of torch for CPUs is not on every index; a file that is there and differs is
    # no misfit: installing ends with pip's word on its hash
    torch = next(line for line in text.splitlines() if line.startswith("torch==")).split()[0]
    asked = subprocess.run([*PIP, "--no-deps", torch], capture_output=True, text=True, check=False)
    if asked.returncode:
        return f"pip finds no {torch} here, which the lock files name"
    return None


def main() -> None:
    """Write the files, or say whether they fit."""
    if sys.argv[1:] == ["--fits"]:
        if why := misfit():
            sys.exit(f"{why}: the versions of constraints.txt are installed instead.")
        return
    pins = (ROOT / "constraints.txt").read_text()
    everything = resolved(f"{ROOT}[dev]", pins=pins)
    build = "setuptools"  # builds upo, and what comes as source
    train = {name: everything[name] for name in [*resolved(str(ROOT), pins=pins), build]}
    tools = [line for name, line in everything.items() if name not in train]
    source = "constraints.txt and pyproject.toml"
    head = HEAD.format(what="What `make train` installs", source=source, here=HERE)
    TRAIN.write_text(head + "".join(sorted(train.values())))
    what = "What `make test` and `make lint` install"
    head = HEAD.format(what=what, source=source, here=HERE)
    ALL.write_text(f"{head}--requirement {TRAIN.name}\n" + "".join(sorted(tools)))
    what, source = "What `make test-lenskit` installs over .venv", "constraints-lenskit.txt"
    head = HEAD.format(what=what, source=source, here=HERE)
    OVER.write_text(head + "".join(sorted(beside(everything))))


if __name__ == "__main__":
    main()
