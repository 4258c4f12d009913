"""Print the lower bounds of pyproject.toml as constraints: ``torch==2.6`` of ``torch>=2.6``."""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print them, those of the extras included."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tools = ("dev", "docs")  # their versions say nothing of ours
    used = (line for name, lines in extras.items() if name not in tools for line in lines)
    for each in [*project["dependencies"], *used]:
        name, bound = re.match(r"([\w.-]+)[^>]*>=([\w.]+)", each).groups()
        sys.stdout.write(f"{name}=={bound}\n")


if __name__ == "__main__":
    main()
