"""``protocol=time``: the latest rows select, what was before trains, for every replica alike."""

from dataclasses import replace

import pytest
import torch

from upo.data.interactions import Interactions, LabelRule
from upo.data.rating_data import RatingData
from upo.errors import InputError
from upo.evaluation.mar import MarSet
from upo.evaluation.protocols import Holdout, MarHoldout, TimeHoldout
from upo.pairs import PairSpace

G = torch.Generator().manual_seed(0)
N = 60


def data(times):
    keys = torch.randperm(200, generator=G)[: len(times)].sort().values
    ratings = torch.randint(1, 6, (len(times),), generator=G).double()
    train = Interactions(keys, ratings, 10, 20, times=times)
    return RatingData("made", train, None, LabelRule(3.0))


def split(made, share=0.1, seeds=(0, 7)):
    protocol = TimeHoldout(share=share)
    held = protocol.held(made)
    return held, PairSpace.of(made, list(seeds), share, held=held)


def test_the_latest_tenth_is_held_out():
    times = torch.rand(N, generator=G, dtype=torch.float64)
    made = data(times)
    held, space = split(made)
    assert int(held.sum()) == 6 == space.n_held
    assert times[held].min() > times[~held].max()
    assert space.held_rows(0, 6).tolist() == [torch.nonzero(held).flatten().tolist()] * 2
    rows = torch.arange(N).expand(2, -1)
    assert torch.equal(space.in_train(rows), ~held.expand(2, -1))
    drawn = space.train_rows(torch.arange(space.n_train).expand(2, -1))
    assert drawn[0].tolist() == torch.nonzero(~held).flatten().tolist()


@pytest.mark.parametrize(
    ("moments", "share", "expected"), [(3, 0.1, 20), (3, 0.6, 40), (30, 0.1, 6)]
)
def test_ratings_of_one_moment_stay_together(moments, share, expected):
    times = (torch.arange(N) % moments).double()
    held, _ = split(data(times), share)
    assert int(held.sum()) == expected
    assert not set(times[held].tolist()) & set(times[~held].tolist())


def test_parts_and_folds_of_the_space_keep_the_split():
    held, space = split(data(torch.rand(N, generator=G, dtype=torch.float64)))
    rows = torch.arange(N)[None]
    for other in (space.part([1]), space.without_fold(1, 4).part([0])):
        assert torch.equal(other.in_train(rows), ~held[None])
        assert other.n_held == space.n_held


@pytest.mark.parametrize(
    ("target", "held", "mar"), [("positive", "log_loss", "log_loss"), ("rating", "mse", "rmse")]
)
def test_protocols_judge_by_the_errors_of_the_target(target, held, mar):
    rows = MarSet(replace(made := data(torch.arange(N).double()), test=made.train), 5)
    for protocol, expected in ((Holdout(), held), (TimeHoldout(), held), (MarHoldout(), mar)):
        protocol.use(rows, target)
        assert protocol.monitor == expected
        assert protocol.sign == 1
    wrong = {"positive": "rmse", "rating": "log_loss"}[target]
    with pytest.raises(InputError, match=f"protocol.monitor={wrong} is not measured with target="):
        MarHoldout(monitor=wrong).use(rows, target)


def test_without_times_there_is_a_sentence():
    made = data(torch.zeros(N, dtype=torch.float64))
    with pytest.raises(InputError, match="every rating has the time 0"):
        TimeHoldout().held(made)
    made = RatingData(
        "made", Interactions(made.train.keys, made.train.ratings, 10, 20), None, LabelRule(3.0)
    )
    with pytest.raises(InputError, match=r"dataset\.time=COLUMN"):
        TimeHoldout().held(made)
    assert Holdout().held(made) is None
