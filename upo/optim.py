"""Adam whose learning rate and weight decay may differ between the replicas of a stack."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from upo.errors import InputError

Hyper = float | Tensor | list[float]


def per_replica(value: Hyper, replicas: int, name: str) -> float | Tensor:
    """A float when all replicas agree, else a float32 ``[R]`` tensor.

    Raises:
        InputError: If a list is neither of length 1 nor of length ``replicas``.
    """
    if isinstance(value, int | float):
        return float(value)
    values = torch.as_tensor(list(value), dtype=torch.float32)
    if values.numel() not in (1, replicas):
        raise InputError(
            f"{name} has {values.numel()} values for {replicas} replicas; "
            "give one value, or one for each replica."
        )
    return float(values[0]) if bool((values == values[0]).all()) else values


class ReplicaAdam(torch.optim.Adam):
    """Fused Adam with coupled L2 decay over replica-major parameters.

    Every parameter holds its replicas first (``[R, ...]`` or ``[R * n, k]``). Where a rate differs
    between replicas, the fused kernel runs at rate 1 and the step is scaled for each replica, so a
    stack costs one kernel whatever its hyperparameters.

    Args:
        params: Parameters of one player.
        replicas: R.
        lr: Learning rate, > 0; a number or one for each replica.
        weight_decay: L2 coefficient added to the gradient, >= 0; a number or one for each replica.
        betas: Decay rates of the moments.
        eps: Added to the denominator.

    Raises:
        InputError: If a rate is out of range or of the wrong length.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        replicas: int = 1,
        lr: Hyper = 1e-2,
        weight_decay: Hyper = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.replicas = replicas
        self.rate = per_replica(lr, replicas, "lr")
        self.decay = per_replica(weight_decay, replicas, "weight_decay")
        rates, decays = torch.as_tensor(self.rate), torch.as_tensor(self.decay)
        if not bool(((rates > 0) & rates.isfinite()).all()):
            raise InputError(f"lr must be positive and finite, got {lr}; try 0.01.")
        if not bool(((decays >= 0) & decays.isfinite()).all()):
            raise InputError(
                f"weight_decay must be at least 0 and finite, got {weight_decay}; try 1e-5."
            )
        super().__init__(
            params,
            lr=self.rate if isinstance(self.rate, float) else 1.0,
            weight_decay=self.decay if isinstance(self.decay, float) else 0.0,
            betas=(betas[0], betas[1]),
            eps=eps,
            fused=True,
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter from its ``.grad``."""
        params = [p for group in self.param_groups for p in group["params"]]
        if isinstance(self.decay, Tensor):
            self.decay = self.decay.to(params[0].device)
            for p in params:
                # out of place: a gradient may be expanded, strided or shared with another's
                if p.grad is not None:
                    p.grad = p.grad + (self._view(p) * self.decay[:, None]).view_as(p)
        if isinstance(self.rate, float):
            self._fused_step()
            return
        self.rate = self.rate.to(params[0].device)
        before = [p.clone() for p in params]
        self._fused_step()
        for p, old in zip(params, before, strict=True):
            # not a lerp: its weight 1 - rate would round a small rate by parts in 1e5
            self._view(p).sub_(self._view(old)).mul_(self.rate[:, None]).add_(self._view(old))

    def _fused_step(self) -> None:
        """Adam's own step, the kernel called directly: half the time while tables are small."""
        for group in self.param_groups:
            params: list[Tensor] = []
            grads: list[Tensor] = []
            means: list[Tensor] = []
            squares: list[Tensor] = []
            counts: list[Tensor] = []
            self._init_group(  # type: ignore[no-untyped-call]
                *(group, params, grads, means, squares, [], counts)
            )
            if not params:
                continue
            torch._foreach_add_(counts, 1)
            torch._fused_adam_(
                *(params, grads, means, squares, [], counts),
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def _view(self, x: Tensor) -> Tensor:
        return x.view(self.replicas, -1)
