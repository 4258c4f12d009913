"""What holds for every metric: replicas, batches, order, reset, pickling, states, refusals."""

import math
import pickle
from itertools import pairwise

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import CASES, N, R, make_data, replica

from upo.functional.binning import bins_from_edges, equal_mass_edges, equal_width_bins
from upo.functional.diagnostics import bmse, dr_bias, dr_variance, ece
from upo.functional.ranking import auc, ranking_sums

EXACT = {"rtol": 0, "atol": 1e-12}  # float64, another order of summation

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
weighted_case = pytest.mark.parametrize(
    "case",
    [c for c in CASES.values() if c.weighted],
    ids=[k for k, c in CASES.items() if c.weighted],
)


def value_of(case, *batches, **kwargs):
    metric = case.make(**kwargs)
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


def loop_log_loss(f, y):
    pairs = zip(f.tolist(), y.tolist(), strict=True)
    return sum(-math.log(p if label else 1 - p) for p, label in pairs) / len(f)


def loop_mse(f, y):
    return sum((a - b) ** 2 for a, b in zip(f.tolist(), y.tolist(), strict=True)) / len(f)


# one replica's value; tests/functional checks these functions against loops over the definitions
DEFINITIONS = {
    "ece": lambda p, o: ece(p, o, equal_width_bins(p, 10), 10),
    "ece_mass": lambda p, o: ece(p, o, bins_from_edges(p, equal_mass_edges(p, 4)), 4),
    "ece_edges": lambda p, o: ece(p, o, (p > 0.3).long() + (p > 0.5).long(), 3),
    "bmse": bmse,
    "bias": dr_bias,
    "variance": dr_variance,
    "log_loss": loop_log_loss,
    "mse": loop_mse,
    "rmse": lambda f, y: math.sqrt(loop_mse(f, y)),
    "mae": lambda f, y: (f - y).abs().sum() / len(f),
    "auc": auc,
    "ndcg": lambda *rows: ranking_sums(*rows, k=3).mean_ndcg("one"),
    "ndcg_skip": lambda *rows: ranking_sums(*rows, k=3).mean_ndcg("skip"),
    "precision": lambda *rows: ranking_sums(*rows, k=3).mean_precision(),
    "recall": lambda *rows: ranking_sums(*rows, k=3).mean_recall(),
    "f1": lambda *rows: ranking_sums(*rows, k=3).f1(),
}


@pytest.mark.parametrize("name", CASES)
def test_values_follow_the_definitions(name):
    data, case = make_data(), CASES[name]
    stacked = value_of(case, case.args(data))
    assert stacked.shape == (R,)
    assert stacked.dtype == torch.float64
    for r in range(R):
        args = case.args(replica(data, r))
        alone = value_of(case, args)
        expected = torch.as_tensor(DEFINITIONS[name](*args), dtype=torch.float64)
        assert alone.shape == ()
        torch.testing.assert_close(alone, expected, **EXACT)
        torch.testing.assert_close(stacked[r], alone, **EXACT)


@every_case
def test_one_replica_keeps_its_axis(case):
    data = {name: x[:1] if x.ndim > 1 else x for name, x in make_data().items()}
    metric = case.make()
    assert metric(*case.args(data)).shape == (1,)  # forward
    assert metric.compute().shape == (1,)


@every_case
@settings(derandomize=True, deadline=None, max_examples=5)
@given(cuts=st.lists(st.integers(0, N), max_size=4), seed=st.integers(0, 1000))
def test_batches_and_order_do_not_matter(case, cuts, seed):
    data = make_data()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    bounds = [0, *sorted(cuts), N]  # equal neighbours: an empty batch
    batches = [case.args(data, order[a:b]) for a, b in pairwise(bounds)]
    torch.testing.assert_close(value_of(case, *batches), value_of(case, case.args(data)), **EXACT)


@every_case
def test_forward_gives_the_batch_and_adds_it(case):
    data = make_data()
    first, second = case.args(data, slice(0, 25)), case.args(data, slice(25, N))
    metric = case.make()
    torch.testing.assert_close(metric(*first), value_of(case, first), **EXACT)
    torch.testing.assert_close(metric(*second), value_of(case, second), **EXACT)
    torch.testing.assert_close(metric.compute(), value_of(case, first, second), **EXACT)


@every_case
def test_reset_forgets_rows_and_layout(case):
    data = make_data()
    metric = case.make()
    metric.update(*case.args(data))
    metric.reset()
    args = case.args(replica(data, 1), slice(0, 30))
    metric.update(*args)
    torch.testing.assert_close(metric.compute(), value_of(case, args), **EXACT)


@every_case
def test_pickled_and_merged(case):
    data = make_data()
    halves = case.args(data, slice(0, 25)), case.args(data, slice(25, N))
    first, second = case.make(), case.make()
    first.update(*halves[0])
    second.update(*halves[1])
    first = pickle.loads(pickle.dumps(first))
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), value_of(case, *halves), **EXACT)


@every_case
def test_states_are_float64_or_integers(case):
    data = make_data(dtype=torch.float32)
    metric = case.make()
    metric.update(*case.args(data))
    states = [t for s in metric.metric_state.values() for t in (s if isinstance(s, list) else [s])]
    assert {t.dtype for t in states} <= {torch.float64, torch.int64, torch.int8}
    assert metric.compute().dtype == torch.float64


@every_case
def test_kept_rows_are_copies_without_gradient(case):
    data = make_data()
    floats = {name: x for name, x in data.items() if x.is_floating_point()}
    for x in floats.values():
        x.requires_grad_()
    metric = case.make()
    metric(*case.args(data))
    before = case.make()
    before.update(*case.args(data))
    for x in floats.values():
        x.detach().zero_()
    assert torch.equal(metric.compute(), before.compute())
    assert not metric.compute().requires_grad
    assert not metric.compute().isnan().any()


@weighted_case
def test_a_weight_repeats_a_row(case):
    data = make_data()
    weight = data["weight"]
    repeated = case.args(data, torch.arange(N).repeat_interleave(weight.long()))
    expected = value_of(case, repeated)
    batches = [[*case.args(data, rows), weight[rows]] for rows in (slice(0, 25), slice(25, None))]
    torch.testing.assert_close(value_of(case, *batches), expected, **EXACT)
    per_replica = [[*args[:-1], args[-1].expand(R, -1)] for args in batches]
    torch.testing.assert_close(value_of(case, *per_replica), expected, **EXACT)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.weighted])
def test_include_is_a_subset(name):
    data, case = make_data(), CASES[name]
    together = value_of(case, [*case.args(data), data["include"]])
    for r in range(R):
        alone = value_of(case, case.args(replica(data, r), data["include"][r]))
        torch.testing.assert_close(together[r], alone, **EXACT)


@every_case
def test_a_flat_input_is_shared_by_the_replicas(case):
    data = make_data()
    first, *rest = case.args(data)
    shared = [x[0] if x.ndim > 1 else x for x in rest]
    stacked = [x[0].expand_as(x) if x.ndim > 1 else x for x in rest]
    torch.testing.assert_close(
        value_of(case, [first, *shared]), value_of(case, [first, *stacked]), **EXACT
    )


@every_case
def test_a_nan_or_another_shape_is_refused_and_leaves_no_trace(case):
    data = make_data()
    good = case.args(data)
    metric = case.make()
    for wrong, message in [
        ([good[0].clone().fill_(math.nan), *good[1:]], "got nan"),
        ([good[0][:, :-1], *good[1:]], "shape"),
        ([good[0][:2], *good[1:]], "shape"),
        ([good[0][0, 0], *good[1:]], "shape"),
        ([good[0][None], *good[1:]], "shape"),
    ]:
        if message == "shape" and wrong[0].shape == (2, N) and all(x.ndim == 1 for x in good[1:]):
            continue  # two replicas with shared labels
        with pytest.raises(ValueError, match=message):
            metric.update(*wrong)
    metric.update(*case.args(replica(data, 0)))
    torch.testing.assert_close(
        metric.compute(), value_of(case, case.args(replica(data, 0))), **EXACT
    )


@every_case
def test_another_number_of_replicas_is_refused(case):
    data = make_data()
    fewer = {name: x[:2] if x.ndim > 1 else x for name, x in data.items()}
    metric = case.make()
    metric.update(*case.args(data))
    with pytest.raises(ValueError, match=r"holds inputs of 3 replicas.* of 2 replicas"):
        metric.update(*case.args(fewer))
    with pytest.raises(ValueError, match=r"holds inputs of 3 replicas.* cannot add 1-D inputs"):
        metric.update(*case.args(replica(data, 0)))
    with pytest.raises(ValueError, match="holds inputs of 2 replicas"):
        value_of(case, case.args(data), replicas=2)
    with pytest.raises(ValueError, match="replicas must be at least 1, got 0"):
        case.make(replicas=0)


@every_case
def test_no_rows_give_nan(case):
    data = make_data()
    value = value_of(case, case.args(data, slice(0, 0)))
    assert value.shape == (R,)
    assert value.isnan().all()


@every_case
def test_plot(case):
    metric = case.make()
    metric.update(*case.args(make_data()))
    for val in (None, metric.compute()):
        figure, _ = metric.plot(val) if val is not None else metric.plot()
        plt.close(figure)
