"""Calibration of a propensity on cells that its copies did not see."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from worlds import make_space

from upo.core.layers import Sizes
from upo.data.semisynthetic_world import TrainCells
from upo.errors import InputError
from upo.models.calibration import Calibration, Cells
from upo.pairs import PairSpace
from upo.runs.compose import conf_dir
from upo.runs.crossfit import sampled_cells
from upo.runs.experiment import Experiment

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
WORLD = [
    "dataset=synthetic",
    "dataset.n_users=60",
    "dataset.n_items=50",
    "dataset.density=0.2",
    "dataset.test_per_user=8",
    "trainer.accelerator=cpu",
    "logger=none",
    "estimator.stages.debias.epochs=1",
]


def run(*words, seeds=(3, 8), folder=None):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("train", [*WORLD, f"seeds={list(seeds)}", *words])
    return Experiment(config, folder, progress=False).run()


def propensities(estimator):
    space = estimator.space
    pairs = space.pairs(torch.arange(space.n_pairs).expand(space.replicas, -1), space.n_pairs)
    with torch.no_grad():
        return estimator.propensity(pairs).double(), pairs


def test_unobserved_cells_are_drawn_alike_for_a_seed_of_a_stack_and_for_it_alone(monkeypatch):
    monkeypatch.setattr("upo.runs.crossfit.LEAST", 10)
    monkeypatch.setattr("upo.runs.crossfit.OTHERS", 1)
    both, alone = (sampled_cells(make_space(seeds)) for seeds in ((3, 7), (7,)))
    assert len(both.users) < make_space((7,)).n_pairs
    assert all(torch.equal(a, b) for a, b in zip(both, alone, strict=True))


def test_folds_are_all_of_d_and_a_copy_trains_on_all_but_its_own():
    cells = TrainCells(12, 17, 0.5, seed=1)
    keys = cells(torch.arange(len(cells))).sort().values[::3]
    for space in (
        make_space((0, 1)),
        PairSpace(keys, torch.arange(len(keys)) % 2, 12, 17, [0, 1], cells=cells),
    ):
        every = torch.arange(space.n_pairs).expand(2, -1)
        keys = every if space.cells is None else space.cells(every)
        fold = space.fold(keys, 3)
        for number in range(3):
            copy = space.without_fold(number, 3)
            assert torch.equal(copy.in_train_cells(keys), fold != number)
            drawn = copy.train_cells(torch.arange(copy.n_train_cells).expand(2, -1))
            held = copy.held_cells(0, copy.n_held_cells)
            both = torch.cat([drawn, held], 1).sort(1).values
            assert torch.equal(both, every)
            at = drawn if space.cells is None else space.cells(drawn)
            assert (space.fold(at, 3) != number).all()
        assert not torch.equal(fold[0], fold[1])  # each replica has its own


def test_sampled_cells_stand_for_all_of_d(monkeypatch):
    space = make_space((0, 1))
    for least in (2**20, 1):
        monkeypatch.setattr("upo.runs.crossfit.LEAST", least)
        cells = sampled_cells(space)
        assert float(cells.weight.sum()) == pytest.approx(space.n_pairs)
        assert int(cells.observed.sum()) == space.n_observed
        assert torch.equal(space.observed(cells.users, cells.items), cells.observed)
        assert len(torch.unique(cells.users * space.n_items + cells.items)) == len(cells.users)


def cells_with_logits(n_users=40, n_items=60):
    """Every cell of D, drawn with P = sigmoid(true), and logits that are half of the true ones."""
    draw = torch.Generator().manual_seed(0)
    at = torch.arange(n_users * n_items)
    users, items = at // n_items, at % n_items
    terms = [torch.randn(n, generator=draw)[x] for n, x in ((n_users, users), (n_items, items))]
    z = terms[0] + terms[1] - 2
    observed = torch.rand(len(at), generator=draw) < torch.sigmoid(z)
    return Cells(users, items, observed, torch.ones(len(at)).double()), z / 2


@pytest.mark.parametrize("kind", ["isotonic", "histogram", "gbdt"])
def test_no_cell_has_a_part_in_what_is_said_of_it_out_of_fold(kind):
    cells, z = cells_with_logits()
    fold = torch.arange(len(z)) % 4
    calibration = Calibration(Sizes(40, 60, [0], 0.2), kind=kind)
    p = calibration.fit(0, cells, z, fold)
    flipped = cells._replace(observed=cells.observed ^ (fold == 1))
    again = calibration.fit(0, flipped, z, fold)
    mine = fold == 1
    if kind != "gbdt":  # the map behind trees is fitted to sums of trees that have seen the fold
        assert torch.equal(again[mine], p[mine])
    assert not torch.equal(again[~mine], p[~mine])
    # 456 cells, which maps of others know to one standard error of 5 %
    torch.testing.assert_close(p.double().sum(), cells.observed.double().sum(), rtol=0.05, atol=0)
    # one fold has all observed cells: what is left knows no rate, so all of them are read
    alone = calibration.fit(0, cells, z, (~cells.observed).long())
    assert alone.isfinite().all()


def test_trees_correct_what_is_wrong_by_the_mean_of_a_user():
    cells, z = cells_with_logits(200, 100)
    mean = torch.zeros(200).index_add(0, cells.users, z) / 100
    wrong = z * 2 - mean[cells.users]  # users at half of their true spread
    p = torch.sigmoid(2 * z).double()
    thirds = mean.argsort().argsort()[cells.users] * 3 // 200

    error = {}
    for kind in ("isotonic", "gbdt"):
        calibration = Calibration(Sizes(200, 100, [0], 0.2), kind=kind)
        calibration.fit(0, cells, wrong, torch.arange(len(z)) % 4)
        found = calibration.corrected(wrong[None], cells.users[None], cells.items[None])[0]
        sums = [found[thirds == k].sum() / p[thirds == k].sum() for k in range(3)]
        error[kind] = max(abs(float(x) - 1) for x in sums)
    assert error["isotonic"] > 0.2
    assert error["gbdt"] < 0.1  # a third has some 600 observed cells at least, known to 4 %


def test_what_is_known_out_of_fold_is_of_the_log_and_of_other_pairs():
    few = ["estimator.stages.propensity.epochs=2", "estimator.stages.refine.epochs=1"]
    words = ["estimator=ips", "propensity=additive", "propensity.folds=2", *few]
    assert run(*words).out_of_fold is None
    result = run(*words, "propensity.calibrate=isotonic")
    space, found = result.estimator.space, result.out_of_fold
    assert not torch.isin(found.others, space.keys).any()
    assert len(torch.unique(found.others)) == len(found.others) == space.n_pairs - space.n_observed
    assert found.propensity.shape == (2, space.n_pairs)
    sums = found.propensity.double().sum(1)
    torch.testing.assert_close(sums, torch.full_like(sums, space.n_observed), rtol=0.1, atol=0)
    p, _ = propensities(result.estimator)  # in the order of the cells
    own = p.gather(1, torch.cat([space.keys, found.others]).expand(2, -1))
    assert not torch.equal(own, found.propensity.double())
    # what knows a pair is closer to it than what does not
    o = (torch.arange(space.n_pairs) < space.n_observed).double()
    assert ((own - o).square().mean(1) < (found.propensity.double() - o).square().mean(1)).all()


@pytest.mark.parametrize("kind", ["isotonic", "histogram", "gbdt"])
def test_calibrated_propensities_sum_to_the_log_and_keep_their_order(kind):
    words = [f"propensity.calibrate={kind}", "propensity.folds=2", "propensity=additive"]
    few = ["estimator.stages.propensity.epochs=2", "estimator.stages.refine.epochs=1"]
    result = run("estimator=ips", *words, *few)
    p, pairs = propensities(result.estimator)
    assert ((p > 0) & (p < 1)).all()
    torch.testing.assert_close(p.sum(1), pairs.o.double().sum(1), rtol=0.1, atol=0)
    z = result.estimator.logit("propensity", pairs).double()
    if kind == "isotonic":
        order = z.argsort(1)
        assert (p.gather(1, order).diff(dim=1) >= -1e-7).all()
    # what divides is the calibrated one
    floor = 0.5 * result.estimator.space.density
    torch.testing.assert_close(
        result.estimator.p_hat(pairs).double(), p.clamp(min=floor), rtol=1e-6, atol=1e-7
    )
    alone = run("estimator=ips", *words, *few, seeds=(8,))
    torch.testing.assert_close(propensities(alone.estimator)[0][0], p[1], rtol=1e-3, atol=1e-4)


def test_a_flipped_cell_does_not_move_its_own_out_of_fold_logit():
    space = make_space((0,))
    key = space.keys[5]
    fold = int(space.fold(key.view(1, 1), 2))
    without = PairSpace(
        torch.cat([space.keys[:5], space.keys[6:]]),
        torch.cat([space.labels[:5], space.labels[6:]]),
        space.n_users,
        space.n_items,
        [0],
    )
    copies = [s.without_fold(fold, 2) for s in (space, without)]
    every = torch.arange(copies[0].n_train_cells)[None]
    drawn = [copy.pairs(copy.train_cells(every), every.shape[1]) for copy in copies]
    assert torch.equal(drawn[0].o, drawn[1].o)
    starts = [copy.sizes.log.cells_by_id() for copy in copies]
    assert all(torch.equal(a, b) for a, b in zip(*starts, strict=True))


def test_a_game_is_calibrated_too_and_a_resumed_run_equals_it(tmp_path):
    few = ["estimator.stages.propensity.epochs=2", "estimator.stages.game.epochs=2"]
    words = ["propensity.calibrate=isotonic", "propensity.folds=2", *few]
    whole = run(*words, folder=tmp_path, seeds=(3,))
    again = run(*words, f"resume={tmp_path}", folder=tmp_path, seeds=(3,))
    assert torch.equal(propensities(whole.estimator)[0], propensities(again.estimator)[0])
    plain = run(*few, seeds=(3,))
    z = [r.estimator.logit("propensity", propensities(r.estimator)[1]) for r in (whole, plain)]
    # copies train beside it and leave it as it is, but for the order of float32 sums
    torch.testing.assert_close(*z, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["propensity.calibrate=platt"], "must be none, isotonic, histogram, gbdt"),
        (["propensity.calibrate=isotonic", "propensity.folds=1"], "at least 2"),
        (["propensity.calibrate=isotonic", "estimator=dr_v2"], "learned beside it"),
        (["propensity.calibrate=isotonic", "estimator=kbips"], "derived from another or from w"),
        (["propensity.calibrate=isotonic", "estimator=user_item_dr"], "derived from another"),
    ],
)
def test_what_cannot_be_calibrated_is_said(words, message):
    with pytest.raises(InputError, match=message):
        run(*words, "estimator.stages.propensity.epochs=1")
