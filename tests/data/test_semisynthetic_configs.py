"""The configuration files of semi-synthetic studies, and bases of one's own."""

import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from small_semisynthetic import rows

import upo.runs.config  # noqa: F401 - registers the schema
from upo.data.semisynthetic import SemiSyntheticDataModule
from upo.data.semisynthetic_completion import Completion
from upo.data.synthetic import SyntheticDataModule

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def composed(tmp_path, monkeypatch):
    monkeypatch.setenv("UPO_CACHE_DIR", str(tmp_path))

    def dataset(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides=list(overrides)).dataset

    return dataset


@pytest.mark.parametrize("name", ["ml100k", "semisynthetic"])
def test_a_file_has_every_key_and_the_defaults(composed, name):
    config = composed(f"dataset={name}")
    for node, target in ((config, SemiSyntheticDataModule), (config.completion, Completion)):
        assert get_class(node["_target_"]) is target
        wanted = inspect.signature(target).parameters
        assert set(node) - {"_target_"} == set(wanted)
        for key, parameter in wanted.items():
            if key not in ("base", "name", "completion", "cache_dir"):
                assert node[key] == parameter.default, key


def test_a_study_of_ones_own_table(composed, tmp_path):
    log = rows()
    pairs = {(int(u), int(i)): float(r) for u, i, r in zip(*log, strict=True)}
    lines = [f"u{u},i{i},{r}\n" for (u, i), r in pairs.items()]
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "".join(lines))
    config = composed(
        "dataset=semisynthetic",
        f"dataset.base.train={tmp_path / 'log.csv'}",
        "dataset.completion.max_epochs=2",
        "dataset.test_share=1",
        "dataset.p=0.6",
    )
    data = instantiate(config).data
    assert (data.train.n_users, data.train.n_items) == (12, 9)
    assert data.user_ids is not None
    assert len(data.cells) + len(data.test) == 12 * 9


def test_another_dataset_takes_the_place_of_the_table(composed):
    config = composed("dataset=semisynthetic", "dataset@dataset.base=synthetic")
    assert isinstance(instantiate(config).base, SyntheticDataModule)
