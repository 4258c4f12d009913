import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: a second thread only makes the first wait


@pytest.fixture
def real_data():
    """The folder of a real dataset; skips where it is absent, as real data is never committed."""

    def folder(name, file):
        root = os.environ.get("UPO_DATA_DIR")
        if not root:
            pytest.skip("UPO_DATA_DIR is not set, so there is no real data to read")
        if not (Path(root) / name / file).is_file():
            pytest.skip(f"no {name}/{file} under UPO_DATA_DIR")
        return Path(root) / name

    return folder
