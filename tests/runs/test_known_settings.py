"""A setting that no part has is said before anything is read."""

import pytest

from upo.errors import InputError
from upo.runs.compose import choices, composed
from upo.runs.config import check
from upo.runs.known_settings import check_settings

UNKNOWN = {
    "+estimator.weighting.pmin=.1": r"^estimator.weighting has no setting pmin \(did you mean p_mi",
    "+estimator.networks.prediction.width=8": r"prediction has no setting width; it has dim, init_",
    "+estimator.learners.prediction.rate=1": "learners.prediction has no setting rate; it has opti",
    "+estimator.learners.prediction.optimizer.rate=1": r"optimizer has no setting rate; it has lr",
    "+estimator.stages.debias.epoch=3": r"debias has no setting epoch \(did you mean epochs\?\)",
    "+dataset.n_user=3": r"^dataset has no setting n_user \(did you mean n_users\?\)",
    "+protocol.shares=.1": r"^protocol has no setting shares \(did you mean share\?\)",
}


@pytest.mark.parametrize("word", UNKNOWN)
def test_a_setting_that_a_part_does_not_take_is_named(word):
    with pytest.raises(InputError, match=UNKNOWN[word]):
        check(composed(["logger=none", "dataset=synthetic", "estimator=ips", word]))


@pytest.mark.parametrize("backbone", choices("backbone"))
def test_no_backbone_has_one(backbone):  # every row is trained in tests/runs/test_configs.py
    check_settings(composed(["logger=none", f"backbone={backbone}"]))


def test_no_dataset_has_one():
    for name in choices("dataset"):
        check_settings(composed(["logger=none", f"dataset={name}"]))


def test_a_part_that_is_not_there_is_left_to_who_builds_it():
    config = composed(["logger=none", "dataset=synthetic", "dataset._target_=no.such.Part"])
    check_settings(config)


def test_a_table_needs_its_file():
    with pytest.raises(InputError, match=r"^dataset=table needs dataset.train=FILE: a CSV or"):
        check(composed(["logger=none", "dataset=table"]))
