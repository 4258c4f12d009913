"""Sums by doubling are those of one pass."""

import pytest
import torch

from upo.core.running import doubled, running_sum


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 1000])
def test_doubling_gives_the_running_sums(count):
    x = torch.rand(2, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    # sums of at most 1000 values below 1, each rounded to 2^-53 of itself
    torch.testing.assert_close(doubled(x), running_sum(x), rtol=0, atol=1e-12)
    assert torch.equal(x, before)
