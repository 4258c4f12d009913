import numpy as np
import pytest

from upo.figures import propensity_histogram


def counts(rng, replicas, edges):
    every, seen = [], []
    for _ in range(replicas):
        p = np.clip(np.exp(rng.normal(-3, 0.8, 80_000)), 1e-4, 1)
        every.append(np.histogram(p, edges)[0])
        seen.append(np.histogram(p[rng.random(p.size) < p], edges)[0])
    return np.array(every), np.array(seen)


@pytest.mark.parametrize("replicas", [1, 10])
def test_draws(rng, check, replicas):
    edges = np.geomspace(1e-3, 1, 41)
    every, seen = counts(rng, replicas, edges)
    if replicas == 1:
        every, seen = every[0], seen[0]
    figure = propensity_histogram(
        every,
        seen,
        edges,
        clip=0.05,
        effective_sample_size=rng.normal(2140, 60, replicas),
        n_observed=6960,
        title="Coat, ips: propensities",
    )
    check(
        figure,
        "Coat, ips: propensities",
        "effective sample size 2,",
        "of 6,960 observed (3",
        "clipped below 0.05: 5",
        "share of pairs",
    )


def test_edge_at_zero_no_clip_and_nothing_observed(rng, check):
    edges = np.linspace(0, 1, 21)
    every, seen = counts(rng, 1, edges)
    figure = propensity_histogram(
        every, 0 * seen, edges, effective_sample_size=np.nan, n_observed=0, title="Nothing observed"
    )
    check(figure, "effective sample size n/a", "all user-item pairs")


def test_clip_below_every_propensity(check):
    figure = propensity_histogram(
        [5, 3], [1, 2], [0.1, 0.2, 0.4], clip=0.01, effective_sample_size=2, n_observed=3, title="T"
    )
    check(figure, "0.0% of all pairs, 0.0% of the observed")


@pytest.mark.parametrize(
    ("edges", "clip", "message"),
    [
        ([0.1, 0.2], None, "one edge more"),
        ([0.1, 0.1, 0.2], None, "increase"),
        ([0, 0.1, 1], 0, "clip"),
    ],
)
def test_wrong_input(edges, clip, message):
    with pytest.raises(ValueError, match=message):
        propensity_histogram(
            [1, 1], [1, 1], edges, clip=clip, effective_sample_size=1, n_observed=2, title=""
        )


def test_a_bin_that_is_cut_at_the_clip_makes_no_notch():
    edges = np.geomspace(0.01, 1.0, 9)
    cut = np.sort(np.append(edges, 0.05))
    even = np.diff(np.log(cut))  # as many pairs everywhere on the log axis
    figure = propensity_histogram(
        even, even, cut, clip=0.05, effective_sample_size=1, n_observed=2, title=""
    )
    outlines = [patch.get_data().values for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(outlines) == 2
    for values in outlines:
        np.testing.assert_allclose(values, values[0], rtol=1e-9)
