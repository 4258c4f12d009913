"""A setting that no part has is said before anything is read."""

import pytest

from upo.errors import InputError
from upo.runs.compose import choices, composed
from upo.runs.config import check
from upo.runs.known_settings import by_replica, check_settings

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


KINDS = {
    "estimator.networks.prediction.dim=abc": r"^estimator\.networks\.prediction\.dim must be a",
    "estimator.networks.prediction.dim=1.5": "dim must be a whole number, got 1.5",
    "estimator.networks.prediction.dim=null": "dim must be a whole number, got null",
    "estimator.learners.prediction.optimizer.lr=fast": r"lr must be a number, or a list \(each a",
    "estimator.learners.prediction.optimizer.lr=": "lr must be a number, .* got ''",
    "estimator.learners.prediction.optimizer.lr=[.1,a]": r"got \[0\.1, 'a'\]",
    "estimator.learners.prediction.optimizer.lr=true": "lr must be a number, .* got True",
    "estimator.fit.p_min=abc": r"^estimator\.fit\.p_min must be a number, .* or auto",  # as given
    "estimator.fit.penalty.rows=abc": r"^estimator\.fit\.penalty must be keys \(each a number",
    "estimator.weighting.relative=no": "relative must be true or false, got 'no'",
    "estimator.stages.debias.epochs=2.5": "epochs must be a whole number, or text, got 2.5",
    "dataset.label_threshold=high": "label_threshold must be a number, got 'high'",
    "dataset.k=5.5": "dataset.k must be a whole number, got 5.5",
    "dataset.drop_overlap=no": "drop_overlap must be true or false, got 'no'",
    "protocol.share=some": "protocol.share must be a number, got 'some'",
}


@pytest.mark.parametrize("word", KINDS)
def test_a_value_of_another_kind_is_named(word):
    """Text for a flag was once true; text for a number ended in a traceback."""
    with pytest.raises(InputError, match=KINDS[word]):
        check(composed(["logger=none", "dataset=synthetic", "estimator=ips", word]))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("dataset.train=null", r"^dataset\.train must be text, got null"),
        ("dataset.train=[a.csv]", r"must be text, got \['a\.csv'\]"),
        ("dataset.train={a: 1}", r"must be text, got \{'a': 1\}"),
        ("dataset.rating_range=5", r"must be a list \(each a number\), or null, got 5"),
    ],
)
def test_files_are_named_by_text(word, said):
    words = ["logger=none", "dataset=table", "dataset.train=log.csv"]
    with pytest.raises(InputError, match=said):
        check(composed([*words, word]))
    check(composed([*words, "dataset.user_column=0", "dataset.rating_range=[1,5]"]))


@pytest.mark.parametrize(
    ("estimator", "word", "said"),
    [
        ("stable_dr", "estimator.weighting.relative=no", "relative must be true or false"),
        ("stable_dr", "+estimator.weighting.foo=1", "has no setting foo; it has p_min, relative"),
        ("akbdr", "estimator.networks.anchors.gamma=wide", "gamma must be a number, got 'wide'"),
        ("akbips", "+estimator.networks.anchors.foo=1", "anchors has no setting foo; it has dim"),
        (
            "cali_mr",
            "estimator.learners.imputation_1.penalties.calibration.span=abc",
            "span must be a number, got 'abc'",
        ),
    ],
)
def test_what_a_part_hands_to_its_base_is_looked_at(estimator, word, said):
    """``relative=no`` was once true there, and the others ended in a traceback."""
    with pytest.raises(InputError, match=said):
        check(composed(["logger=none", "dataset=synthetic", f"estimator={estimator}", word]))


def test_values_for_each_replica_are_found_where_they_were_given():
    words = ["estimator=ips", "estimator.fit.penalty.rows=[.1,.2]"]
    words += ["estimator.fit.p_min=[0,1]", "estimator.networks.prediction.init_scale=[1,2]"]
    assert set(by_replica(composed(words))) == {
        "estimator.fit.penalty.rows",
        "estimator.fit.p_min",
        "estimator.networks.prediction.init_scale",
    }
    for name in choices("estimator"):
        assert not by_replica(composed([f"estimator={name}", "backbone=ncf"]))


def test_an_empty_folder_of_data_is_not_the_current_one(monkeypatch):
    monkeypatch.setenv("UPO_DATA_DIR", "")
    with pytest.raises(InputError, match=r"UPO_DATA_DIR\) is empty, as from a variable"):
        check(composed(["logger=none"]))
