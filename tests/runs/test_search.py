"""A search has its budget, rounds and own keys; it survives a kill and a diverging trial."""

import math

import pytest
from omegaconf import OmegaConf

from upo.errors import InputError
from upo.runs.compose import choices, composed
from upo.runs.experiment import Experiment
from upo.runs.search import Budget, judge_with, open_study, search
from upo.runs.search_space import Range, Space, space_of

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
SPACE = Space({"x": Range(0.01, 1.0, "log"), "y": Range(0.0, 1.0, "linear")}, {"size": [1, 2]})
WORLD = [
    "logger=none",
    "progress=false",
    "figures=false",
    "dataset.n_users=40",
    "dataset.n_items=32",
    "dataset.density=0.2",
    "trainer.accelerator=cpu",
    "estimator.stages.debias.epochs=2",
]


class Judge:
    """A bowl with its bottom at x = 0.1; notes the rounds."""

    def __init__(self, stop=None, lost=lambda x: False):
        self.rounds, self.stop, self.lost = [], stop, lost

    def __call__(self, shared, trials):
        if len(self.rounds) == self.stop:
            raise KeyboardInterrupt
        self.rounds.append((shared, list(trials)))
        return [
            math.nan if self.lost(t["x"]) else math.log10(t["x"] / 0.1) ** 2 + 0.1 * t.get("y", 0.0)
            for t in trials
        ]


def found(judge, budget, study=None, space=SPACE):
    return search(study or open_study(None, None, space, budget, None), space, budget, judge)


@pytest.mark.parametrize(("trials", "batch", "sizes"), [(16, 4, [4] * 4), (7, 3, [3, 3, 1])])
def test_trials_come_in_rounds_that_share_a_structure(trials, batch, sizes):
    judge = Judge()
    result = found(judge, Budget(trials, batch, 1))
    assert [len(each) for _, each in judge.rounds] == sizes
    assert len(result.trials) == trials
    assert all(set(shared) == {"size"} for shared, _ in judge.rounds)
    best = result.trials.sort_values("value").iloc[0]
    assert result.value == best["value"]
    assert result.overrides == {"size": best["size"], "x": best["x"], "y": best["y"]}


def test_later_rounds_are_proposed_from_earlier_ones():
    judge = Judge()
    found(judge, Budget(32, 4, 1))
    off = [[abs(math.log10(t["x"] / 0.1)) for t in trials] for _, trials in judge.rounds]
    first, last = off[:2], off[-2:]
    assert sum(map(sum, last)) < 0.7 * sum(map(sum, first))


def test_a_killed_search_goes_on_as_if_it_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr("upo.runs.search.fingerprint", lambda data: "log")
    budget, config = Budget(12, 4, 1), OmegaConf.create({"a": 1})

    def study(name):
        return open_study(tmp_path / name, config, SPACE, budget, None)

    whole = found(Judge(), budget, study("whole"))
    with pytest.raises(KeyboardInterrupt):
        found(Judge(stop=2), budget, study("killed"))
    rest = Judge()
    again = found(rest, budget, study("killed"))
    assert len(rest.rounds) == 1
    assert again.trials.equals(whole.trials)
    nothing = Judge()
    assert found(nothing, budget, study("killed")).overrides == whole.overrides
    assert not nothing.rounds
    more = Judge()
    found(more, Budget(16, 4, 1), study("killed"))  # of the same study
    assert len(more.rounds) == 1


def test_a_diverging_trial_fails_and_the_search_goes_on():
    judge = Judge(lost=lambda x: x > 0.3)
    result = found(judge, Budget(16, 4, 1))
    failed = result.trials[result.trials["state"] == "failed"]
    assert 0 < len(failed) < 16
    assert (failed["x"] > 0.3).all()
    assert failed["value"].isna().all()
    assert len(result.trials) == 16
    assert f"{len(failed)} of 16 trials diverged" in result.remarks[-1]
    with pytest.raises(InputError, match="All 4 trials diverged"):
        found(Judge(lost=lambda x: True), Budget(4, 2, 1))


def test_a_range_is_widened_once_where_the_best_lies_at_its_edge():
    space = Space({"x": Range(0.2, 2.0, "log", (0.1, 9.0))}, {})
    judge = Judge()
    result = found(judge, Budget(40, 10, 1), space=space)
    before = [t["x"] for _, trials in judge.rounds[:2] for t in trials]
    after = [t["x"] for _, trials in judge.rounds[2:] for t in trials]
    assert min(before) >= 0.2
    assert 0.1 <= min(after) < 0.2  # a quarter of it, but for the limit
    assert len(result.trials) == 40  # within the budget
    edge = Space({"x": Range(0.5, 1.0, "log")}, {})
    said = found(Judge(), Budget(4, 4, 1), space=edge).remarks
    assert not said or "x=" in said[0]


def test_a_clip_may_be_none():
    clip = Range(0.01, 3.0, "log0")
    assert clip.value(0.005) == 0.0
    assert clip.value(0.02) == 0.02
    assert clip.edge(0.0034) is None
    assert clip.distribution().low == pytest.approx(0.01 / 3)


@pytest.mark.parametrize("number", [0, -1, 2.5, True, None])
def test_a_budget_that_is_none_ends_in_a_sentence(number):
    with pytest.raises(InputError, match="trials must be a whole number of at least 1"):
        Budget(number, 4, 1)


@pytest.mark.parametrize("entry", [[0.1, 0.01, "log"], [0.0, 1.0, "log"], [0, 1, "cubic"], [1]])
def test_a_range_that_is_none_ends_in_a_sentence(entry):
    key = "estimator.networks.prediction.init_scale"
    wrong = OmegaConf.create({"space": {key: entry}})
    with pytest.raises(InputError, match=r"init_scale must be \[low, high, kind\]"):
        space_of(composed(["estimator=naive"]), wrong, [])


OF_TWO = ("upo_dr", "dr_v2", "kbdr", "dr_gpl", "mr", "dce_dr", "cbpl")
OWN = {
    "upo_dr": "game.penalties.upo.beta",
    "dr_v2": "balance.penalties.bmse.gamma",
    "kbdr": "weight.slack",
    "asips": "agreement.tau",
    "dr_gpl": "generalized.penalties.gpl.mix",
    "mr": "balance.ridge",
    "dce_dr": "propensity.experts",
    "cbpl": "decomposed.penalties.calibration.beta",
    "rd_ips": "prediction.objective.gamma",
    "cvib": "prediction.objective.alpha",
}


def searched(name):
    wanted = composed([], "search/default").search
    return space_of(composed([f"estimator={name}", "~tuned@_global_"]), wanted, [])


@pytest.mark.parametrize("name", OWN)
def test_a_row_is_searched_over_its_own_strengths(name):
    space = searched(name)
    keys = {*space.ranges, *space.structure}
    assert any(key.endswith(OWN[name]) for key in keys)
    assert not keys & set(space.left_out)
    clip = space.ranges.get("estimator.weighting.p_min")
    weighting = composed([f"estimator={name}"]).estimator.get("weighting") or {}
    assert (clip is not None) == ("p_min" in weighting)  # `auto`, where no value is
    assert clip is None or clip.kind == "log0"
    assert ("estimator.second.lr" in keys) == (name in OF_TWO)


def test_what_moves_nothing_is_left_out():
    space = searched("naive")  # which has no imputation and no propensity
    for key in ("estimator.second.lr", "estimator.fit.penalty.rows", "estimator.weighting.p_min"):
        assert key in space.left_out


@pytest.mark.slow
def test_no_key_of_the_search_is_of_no_row():
    wanted = composed([], "search/default").search
    spaces = [searched(name) for name in choices("estimator")]
    known = {key for space in spaces for key in (*space.ranges, *space.structure)}
    # tables of `mf` start at init_scale, those of `mf_plain` at init_std
    assert {*map(str, wanted.space), *map(str, wanted.structure)} - known <= {
        "estimator.networks.prediction.init_std",
        "estimator.learners.propensity_2.penalties.calibration.strength",
        "estimator.learners.imputation_2.penalties.calibration.strength",
    }


def test_trials_of_a_round_are_what_each_would_be_alone():
    config = composed([*WORLD, "estimator=naive"])
    judge = judge_with(Experiment(config, progress=False), 2)
    key = "estimator.learners.prediction.optimizer.lr"
    trials = [{key: 0.001}, {key: 1e30}, {key: 0.02}]
    values = judge({"estimator.networks.prediction.dim": 16}, trials)
    assert math.isnan(values[1])  # diverged
    for n in (0, 2):
        alone = judge({"estimator.networks.prediction.dim": 16}, [trials[n]])
        assert values[n] == pytest.approx(alone[0], rel=1e-6)
    assert math.isnan(judge({}, [trials[1]])[0])  # every one of them
