"""``upo.lenskit`` where LensKit is not installed; ``tests/with_lenskit`` has the rest."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_without_lenskit_it_is_said():
    code = "import sys; sys.modules['lenskit'] = None\nimport upo.lenskit"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    words = "upo.lenskit needs LensKit, 2025.6 or later; install it: pip install upo[lenskit]."
    assert words in done.stderr
    assert done.returncode
