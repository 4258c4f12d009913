"""A notebook's code, cell after cell in a shell; the kinds of what it shows go to ``kinds``."""

import json
import sys
from pathlib import Path

from IPython.core.formatters import DisplayFormatter
from IPython.core.interactiveshell import InteractiveShell


class Noting(DisplayFormatter):
    """Notes the kinds of whatever is shown."""

    def format(self, *given, **named):
        data, metadata = super().format(*given, **named)
        with Path("kinds").open("a") as file:
            file.writelines(f"{kind}\n" for kind in data)
        return data, metadata


class Shell(InteractiveShell):
    """One without windows."""

    def init_display_formatter(self):
        self.display_formatter = Noting(parent=self)

    def enable_gui(self, gui=None):
        """Figures are drawn inline."""


if __name__ == "__main__":
    shell = Shell.instance()
    for cell in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and not shell.run_cell("".join(cell["source"])).success:
            raise SystemExit(1)
