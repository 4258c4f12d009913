"""Gradients of lookups, collected in kept tensors or found by autograd."""

import pytest
import torch

from upo.core.layers import ReplicaEmbedding
from upo.core.lookups import _collected, collecting


def make_table(replicas=2):
    return ReplicaEmbedding(5, 3, seeds=list(range(replicas)), std=1.0, purpose="t")


def loss(table):
    """Two lookups with repeated rows, whose gradient depends on the table."""
    first = table(torch.tensor([[0, 4, 4], [1, 1, 1]]))
    second = table(torch.tensor([[4], [0]]))
    return (first**2).sum() + (second * first[:, :1]).sum()


def test_a_lookup_finds_each_replicas_rows():
    table = make_table()
    index = torch.tensor([[3, 0], [2, 2]])
    for r in range(2):
        assert torch.equal(table(index)[r], table.tables()[r][index[r]])


def test_the_gradient_equals_that_of_plain_indexing():
    table = make_table()
    weight = table.weight.detach().clone().requires_grad_()
    plain = weight.view(2, 5, 3)
    rows = torch.arange(2)[:, None]
    first = plain[rows, torch.tensor([[0, 4, 4], [1, 1, 1]])]
    second = plain[rows, torch.tensor([[4], [0]])]
    value = (first**2).sum() + (second * first[:, :1]).sum()
    (expected,) = torch.autograd.grad(value, weight)
    (found,) = torch.autograd.grad(loss(table), table.weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)  # sums of three float32


def test_collected_gradients_are_those_of_autograd_and_start_at_zero():
    table = make_table()
    (expected,) = torch.autograd.grad(loss(table), table.weight)
    for _ in range(2):
        with collecting({id(table.weight): table.gradient(by_rows=False)}):
            (found,) = torch.autograd.grad(loss(table), table.weight, allow_unused=True)
        assert found is None
        torch.testing.assert_close(table.gradient(by_rows=False).total, expected, rtol=0, atol=1e-6)
        assert not _collected  # nothing is collected after the block


def test_other_tables_are_left_to_autograd():
    table, other = make_table(), make_table()
    with collecting({id(other.weight): other.gradient(by_rows=False)}):
        (found,) = torch.autograd.grad(loss(table), table.weight)
    assert found.abs().sum() > 0
    assert other.gradient(by_rows=False).total.abs().sum() == 0


def test_a_second_derivative():
    table = make_table().double()
    index = torch.tensor([[0, 4], [1, 1]])
    (slope,) = torch.autograd.grad((table(index) ** 3).sum(), table.weight, create_graph=True)
    (curve,) = torch.autograd.grad(slope.sum(), table.weight)
    count = torch.zeros(2, 5, dtype=torch.float64)
    count[0, 0] = count[0, 4] = 1
    count[1, 1] = 2
    expected = 6 * table.weight.detach() * count.view(10, 1)
    torch.testing.assert_close(curve, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("failing", [True, False])
def test_an_error_ends_the_collecting(failing):
    table = make_table()
    if failing:
        sums = {id(table.weight): table.gradient(by_rows=False)}
        with pytest.raises(RuntimeError, match="broken"), collecting(sums):
            raise RuntimeError("broken")
    (found,) = torch.autograd.grad(loss(table), table.weight)
    assert found is not None
