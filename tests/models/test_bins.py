import pytest
import torch
from worlds import make_estimator, make_space

from upo.errors import InputError
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.propensity import bin_index
from upo.models.bins import Bins


def everyone(space):
    return space.pairs(torch.arange(space.n_pairs).expand(space.replicas, -1), space.n_pairs)


@pytest.mark.parametrize("rule", ["equal_width", "equal_mass"])
def test_fixed_rules_are_those_of_the_loss(rule):
    p_hat = torch.rand(2, 50, generator=torch.Generator().manual_seed(0))
    bins = Bins(num_bins=7, rule=rule)
    bins.refresh(None, 0)  # nothing to recompute, so nothing is read
    assert torch.equal(bins.index(p_hat), bin_index(p_hat, 7, rule))


def test_adaptive_bins_are_equal_mass_bins_of_d():
    estimator = make_estimator(make_space(), "adaptive", num_bins=5)
    bins, pairs = estimator.bins, everyone(estimator.space)
    bins.refresh(estimator, 0)
    assert bins.edges.shape == (3, 4)
    p_hat = estimator.propensity(pairs).detach()
    assert torch.equal(bins.edges, equal_mass_edges(p_hat, 5))
    part = p_hat[:, 30:60]  # a batch is put into the bins of D, not into its own
    assert torch.equal(bins.index(part), bins_from_edges(part, bins.edges))
    for row in bins.index(p_hat):
        counts = torch.bincount(row, minlength=5)
        assert counts.min() >= estimator.space.n_pairs // 5 - 1


def test_a_sample_of_d_changes_with_the_epoch_and_not_with_the_call():
    estimator = make_estimator(make_space(), "adaptive", num_bins=5)
    bins = estimator.bins
    bins.sample = 60
    edges = []
    for epoch in (0, 0, 1):
        bins.refresh(estimator, epoch)
        edges.append(bins.edges)
    assert torch.equal(edges[0], edges[1])
    assert not torch.equal(edges[0], edges[2])


def test_adaptive_bins_carry_no_gradient():
    estimator = make_estimator(make_space(), "adaptive")
    estimator.bins.refresh(estimator, 0)
    p_hat = estimator.propensity(everyone(estimator.space))
    assert not estimator.bins.edges.requires_grad
    assert not estimator.bins.index(p_hat).requires_grad


def test_edges_survive_saving_and_loading():
    estimator = make_estimator(make_space(), "adaptive", num_bins=5)
    estimator.bins.refresh(estimator, 0)
    other = Bins(num_bins=5)
    state = estimator.bins.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.edges, estimator.bins.edges)
    state["edges"].zero_()
    assert other.edges.any()


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="num_bins"):
        Bins(num_bins=0)
    with pytest.raises(InputError, match="'quantile'"):
        Bins(rule="quantile")
