"""Two gloo processes with uneven and empty shares give what one process gives."""

import warnings

import pytest
import torch
from metric_cases import CASES, N, make_data, replica
from processes import together
from torch import distributed

SHARES = {  # rows of rank 0 and rank 1; users and ties are split between them
    "uneven": (slice(0, 29), slice(29, N)),
    "rank 0 empty": (None, slice(0, N)),
    "rank 1 empty": (slice(0, N), None),
    "both empty": (None, None),
    "empty batch": (slice(0, 0), slice(0, N)),
}


def work(rank, folder):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # torchmetrics warns where a rank computes without an update
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/init", rank=rank, world_size=2
    )
    results = {}
    for flat in (False, True):
        data = replica(make_data(), 0) if flat else make_data()
        for name, case in CASES.items():
            for share, rows in SHARES.items():
                metric = case.make()
                if rows[rank] is not None:
                    metric.update(*case.args(data, rows[rank]))
                results[name, share, flat] = metric.compute()
            # the states of this rank alone are back, and rows can still be added
            metric = case.make()
            metric.update(*case.args(data, slice(20 * rank, 20 * rank + 10)))
            metric.compute()
            metric.update(*case.args(data, slice(20 * rank + 10, 20 * rank + 20)))
            results[name, "continued", flat] = metric.compute()
    for name, case in CASES.items():  # one kind of input per rank: refused on both
        metric = case.make()
        metric.update(*case.args(replica(make_data(), 0) if rank else make_data()))
        try:
            metric.compute()
        except ValueError as error:
            results[name, "mixed"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gloo")
    together(work, 2, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("flat", [False, True], ids=["replicas", "flat"])
@pytest.mark.parametrize("share", [*SHARES, "continued"])
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(results, name, share, flat):
    case, data = CASES[name], replica(make_data(), 0) if flat else make_data()
    metric = case.make()
    metric.update(*case.args(data))
    expected = metric.compute()
    for result in results:
        value = result[name, share, flat]
        if share == "both empty":
            assert value.shape == ()
            assert value.isnan()
        else:  # float64, another order of summation
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_ranks_with_different_kinds_of_input_are_refused(results, name):
    for result in results:
        assert "cannot be joined" in result[name, "mixed"]
