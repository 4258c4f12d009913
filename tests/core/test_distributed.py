"""Two and three gloo processes with uneven shares compute what one process computes."""

from itertools import pairwise

import pytest
import torch
from processes import found_by_ranks
from worlds import make_estimator, make_learners, make_space, parameters

from upo.core import distributed
from upo.functional.propensity import upo_loss
from upo.models.bins import RULES
from upo.pairs import BatchSampler

GAMES = {2: "equal_mass", 3: "adaptive"}  # processes -> rule of the bins in the game they play
STEPS = 100
O_BATCH, D_BATCH = 19, 101  # divisible by neither 2 nor 3
LENGTHS = (10, 2, 1)  # the last two leave a rank of three, or of two, without a row


def integers(length):
    """[2, length] whole numbers, whose float64 sums are exact in any order."""
    return torch.arange(2 * length, dtype=torch.float64).view(2, length) - 3


def sums():
    """What the helpers make of this rank's slices of known rows."""
    found = {}
    for length in LENGTHS:
        lo, hi = distributed.share(length)
        x = integers(length)[:, lo:hi].requires_grad_()
        total, mean = distributed.batch_sum(x), distributed.batch_mean(x)
        (slope,) = torch.autograd.grad((total**2).sum() + (mean**3).sum(), x)
        centre = distributed.into_rows(distributed.batch_mean(x**2)).unsqueeze(-1)
        (nested,) = torch.autograd.grad(distributed.batch_sum((x - centre) ** 3).sum(), x)
        found[length] = {
            "share": (lo, hi),
            "sum": total.detach(),
            "mean": mean.detach(),
            "rows": distributed.gather_rows(x),
            "slope": distributed.gather_rows(slope),
            "nested": distributed.gather_rows(nested),
        }
    parts = [
        torch.full((2, 3), float(distributed.rank() + 1)),
        torch.ones(()),
        torch.zeros(3, 2).t(),
        *(torch.arange(float(2 * distributed.LARGE)).view(2, -1).clone() for _ in range(2)),
        torch.ones(distributed.LARGE, 2).t(),
    ]
    distributed.sum_gradients(parts)
    found["gradients"] = parts
    return found


def losses():
    g = torch.Generator().manual_seed(0)
    p_hat = torch.rand(2, 53, generator=g, dtype=torch.float64)
    w = torch.randn(2, 53, generator=g, dtype=torch.float64)
    o = torch.bernoulli(p_hat, generator=g)
    lo, hi = distributed.share(53)
    part = [x[:, lo:hi] for x in (p_hat, o, w)]
    return {rule: upo_loss(*part, num_bins=6, binning=rule) for rule in RULES[:2]}


def play(rule):
    """The minimax pair, prediction and imputation on the same batches (the parts of upo_dr)."""
    space = make_space([0, 5], holdout=0.2)
    estimator = make_estimator(space, rule)
    learners = make_learners(estimator)
    sampler = BatchSampler(space, "debias", O_BATCH, D_BATCH)
    drawn, logs = [], {}  # this rank's slices; the last losses
    estimator.bins.refresh(estimator, 0)
    for batch in sampler.chunk(0, STEPS):
        for pairs in (batch.rows, batch.pairs):
            index = pairs.users * space.n_items + pairs.items
            drawn.append(torch.cat([index, pairs.labels.long()]))
        for name, learner in learners.items():
            logs[name] = learner.update(batch)["gain" if name == "adversary" else "loss"]
    return {"drawn": drawn, "logs": logs, "networks": parameters(estimator.networks)}


def everything(rules):
    return {
        "sums": sums(),
        "losses": losses(),
        "games": {rule: play(rule) for rule in rules},
        "rank": (distributed.rank(), distributed.world_size()),
    }


def of_a_rank(_, size):
    return everything([GAMES[size]])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """World size -> what each of its ranks found."""
    return found_by_ranks(of_a_rank, list(GAMES), tmp_path_factory.mktemp("gloo"))


@pytest.fixture(scope="module")
def alone():
    return everything(GAMES.values())


@pytest.mark.parametrize("size", GAMES)
def test_ranks_know_themselves(results, alone, size):
    assert [r["rank"] for r in results[size]] == [(rank, size) for rank in range(size)]
    assert alone["rank"] == (0, 1)


@pytest.mark.parametrize("size", GAMES)
@pytest.mark.parametrize("length", LENGTHS)
def test_shares_are_consecutive_and_even(results, size, length):
    shares = [r["sums"][length]["share"] for r in results[size]]
    assert shares[0][0] == 0
    assert shares[-1][1] == length
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    widths = {hi - lo for lo, hi in shares}
    assert max(widths) - min(widths) <= 1


@pytest.mark.parametrize("size", GAMES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("what", ["sum", "mean", "rows"])
def test_sums_means_and_rows_are_exact(results, alone, size, length, what):
    x = integers(length)
    expected = {"sum": x.sum(-1), "mean": x.mean(-1), "rows": x}[what]
    for result in [*results[size], alone]:
        assert torch.equal(result["sums"][length][what], expected)


@pytest.mark.parametrize("size", GAMES)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("what", ["slope", "nested"])
def test_slopes_are_those_of_the_global_sums(results, alone, size, length, what):
    # float64: the division by the number of rows is rounded; nested, also sums of its results
    tolerance = {"slope": {"rtol": 1e-14, "atol": 0}, "nested": {"rtol": 1e-12, "atol": 1e-11}}
    for result in results[size]:
        torch.testing.assert_close(
            result["sums"][length][what], alone["sums"][length][what], **tolerance[what]
        )


@pytest.mark.parametrize("size", GAMES)
def test_gradients_are_added_in_place_in_any_layout(results, alone, size):
    for result in results[size]:
        filled, scalar, strided, *large = result["sums"]["gradients"]
        assert torch.equal(filled, torch.full((2, 3), size * (size + 1) / 2))
        assert scalar == size
        assert torch.equal(strided, torch.zeros(2, 3))
        once = torch.arange(float(2 * distributed.LARGE)).view(2, -1)  # whole numbers: exact
        expected = (once * size, once * size, torch.full((2, distributed.LARGE), float(size)))
        assert all(torch.equal(a, b) for a, b in zip(large, expected, strict=True))
    assert alone["sums"]["gradients"][1] == 1


@pytest.mark.parametrize("size", GAMES)
@pytest.mark.parametrize("rule", RULES[:2])
def test_the_upo_loss_is_exact(results, alone, size, rule):
    for result in results[size]:
        # float64, another order of summation
        torch.testing.assert_close(
            result["losses"][rule], alone["losses"][rule], rtol=0, atol=1e-14
        )


@pytest.mark.parametrize("size", GAMES)
def test_slices_of_the_ranks_are_the_batches_of_one(results, alone, size):
    slices = [r["games"][GAMES[size]]["drawn"] for r in results[size]]
    whole = alone["games"][GAMES[size]]["drawn"]
    assert len(whole) == 2 * STEPS
    assert all(torch.equal(torch.cat(s, -1), w) for *s, w in zip(*slices, whole, strict=True))


@pytest.mark.parametrize("size", GAMES)
def test_the_same_parameters_are_learned(results, alone, size):
    first, *_ = games = [r["games"][GAMES[size]] for r in results[size]]
    expected = alone["games"][GAMES[size]]
    for game in games:
        for name, p in expected["networks"].items():
            # float32 sums in another order; Adam carries them through 100 steps of size 0.02
            torch.testing.assert_close(game["networks"][name], p, rtol=0, atol=1e-5)
            # and the ranks never part, as all apply the same summed gradient
            assert torch.equal(game["networks"][name], first["networks"][name])
        for name, value in expected["logs"].items():
            torch.testing.assert_close(game["logs"][name], value, rtol=1e-4, atol=1e-5)
