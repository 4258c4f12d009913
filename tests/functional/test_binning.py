import pytest
import torch

from upo.functional.binning import bin_sums, bins_from_edges, equal_mass_edges, equal_width_bins


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("num_bins", [1, 2, 8, 32])
def test_equal_width_bins_are_right_closed(num_bins):
    # multiples of 1/64: every product and edge is exact, so the comparison below is too
    p_hat = torch.arange(65) / 64
    edges = [m / num_bins for m in range(1, num_bins + 1)]
    expected = [next(m for m, edge in enumerate(edges) if p <= edge) for p in p_hat.tolist()]
    assert equal_width_bins(p_hat, num_bins).tolist() == expected


def test_equal_width_bins_stay_inside_for_any_value():
    wild = torch.tensor([float("nan"), float("inf"), -float("inf"), -1.0, 2.0])
    index = equal_width_bins(wild, 10)
    assert index.dtype == torch.int64
    assert ((index >= 0) & (index <= 9)).all()
    assert index[3:].tolist() == [0, 9]


@pytest.mark.parametrize(("n", "num_bins"), [(1, 5), (7, 3), (11, 10), (100, 1), (1000, 20)])
def test_equal_mass_edges_are_quantiles(n, num_bins):
    p_hat = uniform(3, n)
    levels = torch.arange(1, num_bins, dtype=torch.float64) / num_bins
    expected = torch.quantile(p_hat, levels, dim=-1).T
    # both interpolate linearly; only rounding differs
    torch.testing.assert_close(equal_mass_edges(p_hat, num_bins), expected, rtol=0, atol=1e-15)


def test_a_cut_that_falls_on_a_row_is_that_row():
    p_hat = uniform(11)
    assert torch.equal(equal_mass_edges(p_hat, 10), p_hat.sort().values[1:-1])


def test_equal_mass_bins_hold_equal_numbers():
    p_hat = uniform(2, 120).float()
    index = bins_from_edges(p_hat, equal_mass_edges(p_hat, 8))
    assert torch.equal(bin_sums(torch.ones_like(p_hat), index, 8), torch.full((2, 8), 15.0))


@pytest.mark.parametrize("shared", [True, False])
def test_weighted_edges_repeat_rows(shared):
    p_hat = (uniform(3, 40) * 10).ceil() / 10  # with ties
    generator = torch.Generator().manual_seed(1)
    counts = torch.randint(0, 4, (40,) if shared else (3, 40), generator=generator)
    for r, count in enumerate(counts.expand(3, 40)):
        repeated = p_hat[r].repeat_interleave(count)
        weighted = equal_mass_edges(p_hat, 7, counts)[r]
        assert torch.equal(weighted, equal_mass_edges(repeated, 7))


def test_tied_values_share_a_bin():
    p_hat = torch.tensor([0.2] * 9 + [0.7])
    assert bins_from_edges(p_hat, equal_mass_edges(p_hat, 5)).unique().tolist() == [0, 4]


@pytest.mark.parametrize("shared", [True, False])
def test_bins_from_edges_are_right_closed(shared):
    edges = uniform(4).sort().values if shared else uniform(3, 4).sort(dim=-1).values
    p_hat = torch.cat([uniform(3, 20, seed=1), edges.expand(3, 4)], dim=-1)
    expected = [
        [sum(p > edge for edge in row_edges) for p in row]
        for row, row_edges in zip(p_hat.tolist(), edges.expand(3, 4).tolist(), strict=True)
    ]
    assert bins_from_edges(p_hat, edges).tolist() == expected


def test_bins_from_edges_compare_in_the_finer_type():
    # 0.1 is a little larger in float32 than in float64
    p_hat, edges = torch.tensor([0.1]), torch.tensor([0.1], dtype=torch.float64)
    assert bins_from_edges(p_hat, edges).item() == 1
    assert bins_from_edges(p_hat, edges.float()).item() == 0


def test_bin_sums_match_a_loop_and_pass_gradients():
    values = uniform(2, 3, 30).requires_grad_()
    index = torch.randint(0, 5, (2, 3, 30), generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2, 3, 5, dtype=torch.float64)
    for a in range(2):
        for b in range(3):
            for i in range(30):
                expected[a, b, index[a, b, i]] += values[a, b, i].item()
    sums = bin_sums(values, index, 5)
    torch.testing.assert_close(sums, expected, rtol=0, atol=1e-14)  # order of summation
    slope = uniform(2, 3, 5, seed=2)
    (sums * slope).sum().backward()
    assert torch.equal(values.grad, slope.gather(-1, index))


def test_one_bin_and_no_rows():
    p_hat = uniform(3, 6)
    edges = equal_mass_edges(p_hat, 1)
    assert edges.shape == (3, 0)
    assert bins_from_edges(p_hat, edges).eq(0).all()
    none = torch.empty(3, 0)
    assert bin_sums(none, equal_width_bins(none, 4), 4).eq(0).all()
    with pytest.raises(ValueError, match="at least one row"):
        equal_mass_edges(none, 4)


def test_wrong_arguments_raise():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        equal_width_bins(torch.ones(3), 0)
    with pytest.raises(ValueError, match="one shape"):
        bin_sums(torch.ones(3), torch.zeros(2).long(), 4)
