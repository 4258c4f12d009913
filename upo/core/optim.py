"""Adam whose learning rate and weight decay may differ between the replicas of a stack."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from upo.core.lookups import TableGradient
from upo.errors import InputError

Hyper = float | Tensor | list[float]

LANES = 8  # fewest elements that a processor's kernel takes at a time

_kept: list[tuple[list[int], int]] = []  # replicas of the stack that is being built, of how many


@contextmanager
def part_of_stack(members: Sequence[int], total: int) -> Iterator[None]:
    """Within the block, what is built is for some replicas of a larger stack.

    A block within one for ``total`` replicas is for some of these.

    Args:
        members: Their numbers there.
        total: Replicas of that stack; a setting with one value for each is read as theirs.
    """
    kept = list(members)
    if _kept and len(_kept[-1][0]) == total:
        within, total = _kept[-1]
        kept = [within[member] for member in kept]
    _kept.append((kept, total))
    try:
        yield
    finally:
        _kept.pop()


def of_members(value: Hyper) -> Hyper:
    """A setting as it is, or the values of the replicas that are being built for.

    >>> with part_of_stack([0, 2], total=3):
    ...     of_members([1.0, 2.0, 3.0]), of_members(0.5)
    ([1.0, 3.0], 0.5)
    """
    if isinstance(value, int | float) or not _kept or len(value) != _kept[-1][1]:
        return value
    return [float(value[member]) for member in _kept[-1][0]]


def per_replica(
    value: Hyper, replicas: int, name: str, dtype: torch.dtype = torch.float32
) -> float | Tensor:
    """A float when all replicas agree, else a ``[R]`` tensor, float32 unless asked otherwise.

    Raises:
        InputError: If a list is neither of length 1 nor of length ``replicas``.
    """
    if isinstance(value, int | float):
        return float(value)
    chosen = of_members(value)
    values = [float(chosen)] if isinstance(chosen, int | float) else [float(x) for x in chosen]
    if len(values) not in (1, replicas):
        raise InputError(
            f"{name} has {len(values)} values for {replicas} replicas; "
            "give one value, or one for each replica."
        )
    # compared as numbers, which waits for no device
    return (
        values[0] if values.count(values[0]) == len(values) else torch.tensor(values, dtype=dtype)
    )


def placed(value: float | Tensor, device: torch.device) -> float | Tensor:
    """A value of ``per_replica`` on a device; the host does not wait until it is there."""
    return value if isinstance(value, float) else value.to(device, non_blocking=True)


class ReplicaAdam(torch.optim.Adam):
    """Fused Adam with coupled L2 decay over replica-major parameters.

    Every parameter holds its replicas first (``[R, ...]`` or ``[R * n, k]``). Where a rate differs
    between replicas, the fused kernel runs on each replica's part, so that a stack takes one pass
    over its parameters and moments whatever its hyperparameters.

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

    replayable = True

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
        self.rate = per_replica(lr, replicas, "lr", torch.float64)  # as precise as a number
        self.decay = per_replica(weight_decay, replicas, "weight_decay")
        self.corrected: tuple[Tensor, Tensor] | None = None  # of the step that is traced
        self.decay_there = self.decay  # where the parameters are, once corrections were asked for
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

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter from its ``.grad``; one without a gradient stays."""
        self.update([p.grad for group in self.param_groups for p in group["params"]])

    @torch.no_grad()
    def update(self, grads: Sequence[Tensor | TableGradient | None]) -> None:
        """Update every parameter from its dense gradient, given in the order of the parameters."""
        rest = iter(grads)
        for group in self.param_groups:
            pairs = zip(group["params"], rest, strict=False)
            found = [(p, g) for p, g in pairs if isinstance(g, Tensor)]
            if found:
                self._update_group(group, found)

    def corrections(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """What depends on the number of a step, for the next ``count`` steps.

        Returns:
            Of each step: the rate over the first moment's bias correction (a scalar, or ``[R, 1]``
            where rates differ), and one over the root of the second's.
        """
        group = self.param_groups[0]
        (beta1, beta2), done = group["betas"], int(next(iter(self.state.values()))["step"])
        step = torch.arange(done + 1, done + count + 1, dtype=torch.float64)
        rate = torch.as_tensor(
            group["lr"] if isinstance(self.rate, float) else self.rate, dtype=torch.float64
        )
        rates = rate.view(-1, 1) / (1 - beta1**step)[:, None, None]
        roots = (1 - beta2**step).rsqrt()
        device = group["params"][0].device
        self.decay_there = placed(self.decay, device)
        sizes = rates.float().to(device)
        if isinstance(self.rate, float):
            sizes = sizes[:, 0, 0]
        return list(zip(sizes, roots.float().to(device), strict=True))

    def skip(self, count: int) -> None:
        """Count steps that were taken by a compiled step."""
        torch._foreach_add_([state["step"] for state in self.state.values()], count)

    def _update_group(self, group: dict[str, Any], found: list[tuple[Tensor, Tensor]]) -> None:
        states = [self._started(p) for p, _ in found]
        if self.corrected is not None:
            for (p, g), state in zip(found, states, strict=True):
                self._elementwise(group, p, g, state["exp_avg"], state["exp_avg_sq"])
            return
        counts = [state["step"] for state in states]
        torch._foreach_add_(counts, 1)
        lists = [
            [p for p, _ in found],
            [g.contiguous() for _, g in found],  # the kernel takes no expanded or strided one
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
        ]
        self._move(group, lists, counts, group["weight_decay"] if self._alike else self.decay)

    def _move(
        self,
        group: dict[str, Any],
        lists: list[list[Tensor]],
        counts: list[Tensor],
        decay: float | Tensor,
    ) -> None:
        """Move parameters, given with their gradients and moments, all replica-major."""
        if isinstance(self.rate, float) and isinstance(decay, float):
            if lists[0][0].device.type == "cpu":
                counts = [c for p, c in zip(lists[0], counts, strict=True) for _ in self._parts(p)]
                lists = [[part for x in tensors for part in self._parts(x)] for tensors in lists]
            self._kernel(group, lists, counts, group["lr"], decay)
            return
        parts = [[x.view(self.replicas, -1).unbind(0) for x in tensors] for tensors in lists]
        for r, values in enumerate(zip(self._each(self.rate), self._each(decay), strict=True)):
            part = [[x[r] for x in tensors] for tensors in parts]
            self._kernel(group, part, counts, *values)

    def _parts(self, x: Tensor) -> Sequence[Tensor]:
        """A tensor, cut where it has one to three elements a replica: all are rounded alike.

        The CPU's kernel takes elements many at a time, and those that are left over one by one,
        with other roundings. Of intercepts it would depend on their number which those are. Of
        larger parameters it are a few of the last replica, where their size is no multiple of 16.
        """
        size = x.numel() // self.replicas
        if self.replicas * size < LANES or size >= LANES // 2:
            return [x]
        return torch.split(x.view(self.replicas, size), (LANES - 1) // size)

    @property
    def _alike(self) -> bool:
        """Whether all replicas have one rate and one decay."""
        return isinstance(self.rate, float) and isinstance(self.decay, float)

    def _each(self, value: float | Tensor) -> list[float]:
        return [value] * self.replicas if isinstance(value, float) else value.tolist()

    def _started(self, p: Tensor) -> dict[str, Tensor]:
        """Moments of a parameter, 0 at first; named as in ``torch.optim.Adam``."""
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
        return state

    def _elementwise(
        self, group: dict[str, Any], p: Tensor, grad: Tensor, mean: Tensor, square: Tensor
    ) -> None:
        """The kernel's update in tensor operations, which a compiler joins with the gradient's."""
        assert self.corrected is not None
        (size, root), (beta1, beta2) = self.corrected, group["betas"]
        decay: float | Tensor = group["weight_decay"]
        if not self._alike:
            # only then: indices of a reshaped table cost the compiled loops a division each
            p, mean, square = (x.view(self.replicas, -1) for x in (p, mean, square))
            grad = grad.reshape(self.replicas, -1)
            there = self.decay_there  # a copy made here would be made in every step
            decay = there if isinstance(there, float) else there[:, None]
        grad = grad + decay * p
        mean.mul_(beta1).add_(grad * (1 - beta1))
        square.mul_(beta2).add_(grad * grad * (1 - beta2))
        p.sub_(size * mean / (square.sqrt() * root + group["eps"]))

    def _kernel(
        self,
        group: dict[str, Any],
        lists: list[list[Tensor]],
        counts: list[Tensor],
        rate: float,
        decay: float,
    ) -> None:
        """Adam's kernel called directly: its own step takes as long while tables are small."""
        torch._fused_adam_(
            *(*lists, [], counts),
            lr=rate,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=decay,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
