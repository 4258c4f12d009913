"""ECE and BMSE on held-out cells: what is in them, what is not, and their floors."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from worlds import make_estimator, make_space

from upo.data.synthetic import SyntheticWorld, make_synthetic
from upo.data.withheld import withhold
from upo.errors import InputError
from upo.evaluation import held_cells
from upo.evaluation.diagnostics import Diagnostics
from upo.evaluation.held_out import against_truth, held_columns
from upo.evaluation.mar import MarSet
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import bmse, ece
from upo.metrics.names import HELD, lower_is_better
from upo.models.oracle import OraclePropensity
from upo.pairs import PairSpace
from upo.runs.measured import fitted_to_all

NOTHING = (None, None)


@pytest.fixture
def estimator():
    return make_estimator(make_space(n_users=40, n_items=30, density=0.2)).eval()


def test_columns_are_the_definitions_on_the_held_out_cells(estimator):
    space = estimator.space
    g = torch.Generator().manual_seed(2)
    tables = torch.randn(40, 2, generator=g), torch.randn(30, 3, generator=g)
    found = held_columns(estimator, tables, num_bins=4)
    cells = space.held_cells(0, space.n_held_cells)
    pairs = space.pairs(cells, cells.shape[-1])
    p_hat = estimator.propensity(pairs).double().detach()
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, 4))
    phi = torch.cat([tables[0][pairs.users], tables[1][pairs.items]], dim=-1)
    torch.testing.assert_close(found["held_ece"], ece(p_hat, pairs.o, index, 4))
    torch.testing.assert_close(found["held_bmse"], bmse(p_hat, pairs.o, phi))
    assert tuple(found) == HELD
    assert lower_is_better("held_ece")


def test_only_held_out_cells_are_read(estimator):
    space = estimator.space
    before = held_columns(estimator, NOTHING)
    held = ~space.in_train_cells(space.keys.expand(space.replicas, -1))
    others = ~held.any(0)  # rows of the log that no replica holds out
    poisoned = PairSpace(
        space.keys[~others], space.labels[~others], space.n_users, space.n_items, [0, 1, 2]
    )
    estimator.space = poisoned
    after = held_columns(estimator, NOTHING)
    for name in ("held_ece", "held_bmse"):
        torch.testing.assert_close(after[name], before[name])


def test_true_propensities_are_at_their_floor(monkeypatch):
    data = make_synthetic(SyntheticWorld(200, 150, density=0.1), 4)
    train = data.train
    labels = train.labels(data.label_rule)
    space = PairSpace(train.keys, labels, 200, 150, list(range(40)), truth=data.truth)
    estimator = make_estimator(space)
    estimator.networks["propensity"] = OraclePropensity(space.sizes)
    for most in (held_cells.MOST_CELLS, 700):  # every cell, and a sample of them
        monkeypatch.setattr(held_cells, "MOST_CELLS", most)
        found = held_columns(estimator, NOTHING)
        for name in ("held_ece", "held_bmse"):
            value = found[name]
            # replicas hold out other cells of one log: nearly independent
            error = float(value.std() / len(value) ** 0.5)
            assert abs(float((value - found[f"{name}_floor"]).mean())) < 4 * error, (most, name)


def test_a_simulated_world_is_measured_against_the_truth():
    data = make_synthetic(SyntheticWorld(40, 30, density=0.2), 4)
    train = data.train
    labels = train.labels(data.label_rule)
    estimator = make_estimator(PairSpace(train.keys, labels, 40, 30, [0, 1], truth=data.truth))
    found = Diagnostics(data, MarSet(data, 5)).measure(estimator)
    columns = against_truth([found])
    torch.testing.assert_close(columns["held_ece"], found.values["ece"])
    assert columns["held_ece_floor"].tolist() == [0, 0]
    other = Diagnostics(data, MarSet(data, 5), definition="table1_compat").measure(estimator)
    assert against_truth([other]) == {}


def stage(network, select, *, learns=True):
    learner = SimpleNamespace(network=network, optimizer=object() if learns else None)
    return SimpleNamespace(plan=SimpleNamespace(select=select), learners={"one": learner})


@pytest.mark.parametrize(
    ("stages", "seen"),
    [
        ([stage("propensity", True), stage("prediction", False)], False),
        ([stage("propensity", "last")], False),
        ([stage("propensity", True), stage("propensity", False)], True),
        ([stage("propensity", False, learns=False)], False),
    ],
)
def test_a_propensity_fitted_to_all_of_d_is_known(estimator, stages, seen):
    assert fitted_to_all(estimator, stages) is seen


def real_log(n_users=60, n_items=50, density=0.2):
    data = make_synthetic(SyntheticWorld(n_users, n_items, density=density), 4)
    return replace(data, truth=None), data.truth


def test_withheld_cells_part_the_log_and_d():
    data, _ = real_log()
    kept, withheld = withhold(data, 0.2)
    everything = torch.arange(60 * 50)
    inside = withheld.cells.contain(everything)
    assert int(inside.sum()) == len(kept.cells) == 48 * 50
    joined = torch.cat([kept.train.keys, withheld.keys]).sort().values
    torch.testing.assert_close(joined, data.train.keys)
    assert withheld.cells.contain(kept.train.keys).all()
    assert not withheld.cells.contain(withheld.keys).any()
    assert withhold(data, 0.0) == (data, None)


def test_withheld_cells_judge_by_the_definitions():
    data, truth = real_log()
    kept, withheld = withhold(data, 0.2)
    train = kept.train
    labels = train.labels(kept.label_rule)
    space = PairSpace(train.keys, labels, 60, 50, [0, 1], cells=kept.cells, truth=truth)
    estimator = make_estimator(space).eval()
    found = held_columns(estimator, NOTHING, 4, withheld)
    keys = torch.nonzero(~withheld.cells.contain(torch.arange(60 * 50))).flatten()
    pairs = space.pairs_at(keys.expand(2, -1), len(keys))
    p_hat = estimator.propensity(pairs).double().detach()
    o = torch.isin(keys, data.train.keys).double().expand(2, -1)
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, 4))
    phi = torch.sigmoid(estimator.logit("prediction", pairs)).unsqueeze(-1)
    torch.testing.assert_close(found["held_ece"], ece(p_hat, o, index, 4))
    torch.testing.assert_close(found["held_bmse"], bmse(p_hat, o, phi))


@pytest.mark.parametrize(
    ("share", "said"), [(0.7, "must lie in"), (True, "must lie in"), (0.1, "is simulated")]
)
def test_withholding_is_refused(share, said):
    data = make_synthetic(SyntheticWorld(20, 10, density=0.3), 4)
    with pytest.raises(InputError, match=said):
        withhold(data, share)
