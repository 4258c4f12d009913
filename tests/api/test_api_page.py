"""What docs/api.md promises: a light import, losses and metrics, any frames, examples that run."""

import re
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
import torch
from api_world import FEW, ROOT, TEST, TRAIN, short

import upo
import upo.functional.propensity


def test_importing_upo_alone_imports_nothing_heavy():
    code = "import sys, upo; print('torch' in sys.modules, hasattr(upo, 'none'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False False"


def test_losses_and_metrics_are_where_they_are_promised():
    assert upo.losses.upo_loss is upo.functional.propensity.upo_loss
    p, o = torch.tensor([0.2, 0.4]), torch.tensor([0.0, 1.0])
    # one bin: |(0 - 0.2) + (1 - 0.4)| / 2
    assert float(upo.losses.upo_loss(p, o, torch.ones(2), num_bins=1)) == pytest.approx(0.2)
    ece = upo.metrics.ExpectedCalibrationError(num_bins=1)
    ece.update(p, o)
    assert float(ece.compute()) == pytest.approx(0.2)
    assert set(dir(upo)) >= set(upo.__all__)


def test_frames_of_other_libraries_and_other_column_names_fit_alike(fitted):
    names = {"user": "uid", "item": "sku", "rating": "stars"}
    frames = [pl.from_pandas(x.rename(columns=names).reset_index(drop=True)) for x in (TRAIN, TEST)]
    other = short(frames[0], test=frames[1], seeds=[3, 8], user="uid", item="sku", rating="stars")
    np.testing.assert_array_equal(other.predict(frames[0]), fitted.predict(TRAIN))
    best = other.recommend(frames[0]["uid"].head(1), 1)
    assert list(best) == ["uid", "sku", "score", "rank"]


# few steps on a small world: the models of the page are worth nothing here
@pytest.mark.filterwarnings("ignore::upo.UselessModelWarning", "ignore::upo.UselessWeightsWarning")
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TRAIN.to_csv("log.csv", index=False)
    TEST.to_csv("uniform.csv", index=False)
    stages = {k: v for k, v in FEW.items() if ".stages." in k or k.startswith("trainer")}
    few = {"progress": False, "overrides": stages}
    fit, tune = upo.fit, upo.tune
    monkeypatch.setattr(upo, "fit", lambda *x, **given: fit(*x, **given | few), raising=False)
    monkeypatch.setattr(
        upo, "tune", lambda *x, **given: tune(*x, **given | few | {"trials": 4}), raising=False
    )
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert code
    exec("\n".join(code), {})
