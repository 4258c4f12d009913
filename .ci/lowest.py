"""Print the lower bounds of pyproject.toml as constraints: ``torch==2.6`` of ``torch>=2.6``."""

import re
import sys
import tomllib
from pathlib import Path


def main() -> None:
    """Print them, those of the extras of the suite included."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = ("tensorboard", "tune", "wandb")
    for each in [*project["dependencies"], *(line for name in used for line in extras[name])]:
        name, bound = re.match(r"([\w.-]+)[^>]*>=([\w.]+)", each).groups()
        sys.stdout.write(f"{name}=={bound}\n")


if __name__ == "__main__":
    main()
