r"""Networks as tables that answer without torch.

A *bilinear* network has the logit :math:`\langle U_u, V_i\rangle + a_u + b_i`, with a global term
in :math:`a_u`; a *perceptron* has layers on :math:`[U_u; V_i]` instead, and no biases.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Plain:
    """Tables of a network, replica by replica, float32.

    Attributes:
        user: ``[R, n_users, d]``; d is 0 of an additive logit.
        item: ``[R, n_items, d]``.
        user_bias: ``[R, n_users]``, the global term in it; None of a perceptron.
        item_bias: ``[R, n_items]``.
        layers: Weight ``[R, in, out]`` and bias ``[R, 1, out]`` of each layer of a perceptron, with
            ReLU between them.
    """

    user: Tensor
    item: Tensor
    user_bias: Tensor | None = None
    item_bias: Tensor | None = None
    layers: tuple[tuple[Tensor, Tensor], ...] = ()


@runtime_checkable
class HasPlain(Protocol):
    """A network that can be written out."""

    def plain(self) -> Plain:
        """Its tables; detached, not copied."""
