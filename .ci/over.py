"""``.venv/bin/python .ci/over.py FOLDER`` makes an environment over the one that runs it.

It sees every package of that one, and what is installed into it stands before them.
"""

import site
import sys
import sysconfig
import venv
from pathlib import Path

folder = sys.argv[1]
venv.create(folder, clear=True, symlinks=True)  # without pip: that of the other is seen
packages = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
below = site.getsitepackages()[0]
Path(packages, "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")
