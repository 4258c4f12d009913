import inspect
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from upo.data.datamodule import RatingDataModule

FILES = [
    Path(__file__).parents[2] / "conf" / "dataset" / f"{name}.yaml"
    for name in ("battery", "coat", "kuairec", "synthetic", "table", "yahoo")
]


def load(path):
    config = OmegaConf.create({"paths": {"data_dir": "/nowhere"}, "dataset": OmegaConf.load(path)})
    if path.stem == "table":
        config.dataset.train = "train.csv"
    if path.stem == "battery":
        config.dataset.log = "tiny"
    return config.dataset


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_has_every_key_and_builds_its_datamodule(path):
    config = load(path)
    target = get_class(config["_target_"])
    wanted = inspect.signature(target).parameters
    assert set(config) - {"_target_"} == set(wanted)
    assert isinstance(instantiate(config), RatingDataModule)
    for key, parameter in wanted.items():
        if parameter.default is not inspect.Parameter.empty:
            assert config[key] == parameter.default, key
