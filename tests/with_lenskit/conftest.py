"""These tests need LensKit, which needs another pandas than the suite: ``make test-lenskit``.

Elsewhere they are not collected; that target fails if it collects none.
"""

import importlib.util
import os

collect_ignore_glob = [] if importlib.util.find_spec("lenskit") else ["test_*.py"]
os.environ["LK_NUM_PROCS"] = "1"  # its checks would start processes, which import all anew


def pytest_configure(config):
    config.addinivalue_line("markers", "eval: of LensKit's own checks")
