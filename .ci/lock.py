"""Write requirements.lock: every package of CI's environment, with the SHA-256 of its file.

It holds for the platform and the Python that run this (``make lock``).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# What `make LOCKED=1 test` installs: Linux x86-64, CPython 3.11, torch's build for the CPU.
# Written by `make lock` from constraints.txt and pyproject.toml; not to be edited by hand.
"""


def resolved() -> list[dict]:
    """What pip would install into an empty environment, nothing of which is installed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        flags = ["--dry-run", "--ignore-installed", "--quiet", "--report", str(report)]
        constraint = ["--constraint", str(ROOT / "constraints.txt")]
        command = [sys.executable, "-m", "pip", "install", *flags, *constraint, f"{ROOT}[dev]"]
        subprocess.run(command, check=True)
        return json.loads(report.read_text())["install"]


def main() -> None:
    """Write the file."""
    lines = []
    for entry in resolved():
        name, version = (entry["metadata"][key] for key in ("name", "version"))
        if name != "upo":
            digest = entry["download_info"]["archive_info"]["hashes"]["sha256"]
            lines.append(f"{name.lower()}=={version} --hash=sha256:{digest}\n")
    (ROOT / "requirements.lock").write_text(HEAD + "".join(sorted(lines)))


if __name__ == "__main__":
    main()
