"""Orthogonality of two sets of embeddings over a batch (DT-IPS, DT-DR)."""

from torch import Tensor

from upo.core.distributed import batch_sum, sum_across_ranks


def orthogonality_penalty(a: Tensor, b: Tensor) -> Tensor:  # [R, B, k], [R, B, l] -> [R]
    r"""Mean square of the entries of :math:`\frac1n A^\top B`, of a global batch of n pairs.

    At least 0; 0 where every dimension of one is uncorrelated with every dimension of the other; in
    units of both embeddings squared.

    Source: code of "Uncovering the limitations of eliminating selection bias", ICDE 2024 (DT).
    Differs: divided by n; the sum over the batch grows with its square.

    >>> import torch
    >>> orthogonality_penalty(torch.tensor([[[1.0], [1.0]]]), torch.tensor([[[1.0], [-1.0]]]))
    tensor([0.])
    """
    n = batch_sum(a.new_ones(a.shape[:2])).clamp(min=1.0)
    product = sum_across_ranks(a.transpose(1, 2) @ b) / n[:, None, None]
    return product.square().mean((1, 2))
