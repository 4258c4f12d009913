"""Running sums whose order of addition is fixed on every device."""

from torch import Tensor


def running_sum(x: Tensor) -> Tensor:  # [..., N] -> [..., N]
    """Sums of the first 1 .. N values of the last axis.

    A GPU leaves open in which order ``cumsum`` adds floats, and refuses it where only deterministic
    algorithms are allowed. There the sums are doubled in width log2(N) times.

    >>> import torch
    >>> running_sum(torch.tensor([1.0, 2.0, 3.0]))
    tensor([1., 3., 6.])
    """
    return x.cumsum(-1) if x.device.type == "cpu" else doubled(x)


def doubled(x: Tensor) -> Tensor:  # [..., N] -> [..., N]
    """``running_sum`` in log2(N) additions of the whole."""
    width = 1
    while width < x.shape[-1]:
        more = x.clone()
        more[..., width:] += x[..., :-width]
        x, width = more, 2 * width
    return x
