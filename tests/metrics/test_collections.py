"""In a MetricCollection every metric computes what it computes alone, whatever stands beside it."""

from itertools import combinations

import pytest
import torch
from metric_cases import CASES, make_data
from torchmetrics import MetricCollection

from upo.metrics import ExpectedCalibrationError
from upo.metrics.histogram import PropensityHistogram

EDGES = torch.tensor([0.0, 0.5, 1.0])
ALIKE = {  # whose sums over the first batch agree
    "edges": (
        ExpectedCalibrationError(3, binning="equal_mass", edges=[0.3, 0.6]),
        ExpectedCalibrationError(3, binning="equal_mass", edges=[0.35, 0.65]),
    ),
    "edges that differ by rounding": (
        ExpectedCalibrationError(2, binning="equal_mass", edges=[0.45]),
        ExpectedCalibrationError(2, binning="equal_mass", edges=[0.45000001]),
    ),
    "width beside edges": (
        ExpectedCalibrationError(3),
        ExpectedCalibrationError(3, binning="equal_mass", edges=[0.3, 0.6]),
    ),
    "clips": (PropensityHistogram(EDGES), PropensityHistogram(EDGES, p_min=0.3)),
    "edges of a histogram": (
        PropensityHistogram(EDGES),
        PropensityHistogram(torch.tensor([0.0, 0.4, 1.0])),
    ),
}
BATCHES = [
    (torch.tensor([0.1, 0.9]), torch.tensor([0, 1])),
    (torch.tensor([0.32, 0.45, 0.62, 0.2]), torch.tensor([1, 1, 0, 1])),
    (torch.tensor([0.34, 0.45000001, 0.64, 0.31]), torch.tensor([0, 0, 1, 1])),
]


@pytest.mark.parametrize("name", ALIKE)
def test_metrics_of_other_arguments_are_not_taken_for_one_another(name):
    metrics = ALIKE[name]
    together = MetricCollection({str(k): metric.clone() for k, metric in enumerate(metrics)})
    alone = [metric.clone() for metric in metrics]
    for batch in BATCHES:
        together.update(*batch)
        for metric in alone:
            metric.update(*batch)
    found = together.compute()
    assert len(together.compute_groups) == 2
    for k, metric in enumerate(alone):
        assert torch.equal(found[str(k)], metric.compute())
        if isinstance(metric, PropensityHistogram):
            for ours, theirs in zip(together[str(k)].histogram(), metric.histogram(), strict=True):
                assert torch.equal(ours, theirs)


def test_metrics_of_the_same_arguments_share_their_sums():
    both = MetricCollection(
        {str(k): ExpectedCalibrationError(2, binning="equal_mass", edges=[0.4]) for k in range(2)}
    )
    both.update(*BATCHES[0])
    assert len(both.compute_groups) == 1


PAIRS = [pair for pair in combinations(CASES, 2) if len({CASES[x].inputs for x in pair}) == 1]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda name: name)
def test_any_two_metrics_stand_beside_one_another(one, other):
    data = make_data()
    args = CASES[one].args(data)
    together = MetricCollection({name: CASES[name].make() for name in (one, other)})
    together.update(*args)
    together.update(*args)
    found = together.compute()
    for name in (one, other):
        metric = CASES[name].make()
        metric.update(*args)
        metric.update(*args)
        assert torch.equal(found[name], metric.compute())


def test_arguments_that_differ_between_processes_are_refused():
    digests = torch.stack([metric.arguments for metric in ALIKE["edges"]])
    reduce = ALIKE["edges"][0]._reductions["arguments"]
    with pytest.raises(ValueError, match="other arguments"):
        reduce(digests)
    assert torch.equal(reduce(digests[[0, 0]]), digests[0])
