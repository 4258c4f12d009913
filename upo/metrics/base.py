"""What every metric here shares: the replica axis, checks of the input, exact sums over ranks."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from upo.metrics.checks import Rule, check

UNKNOWN = -1  # layout entry not yet seen
FLAT = 0  # layout entry: 1-D input, scalar result
_ARGUMENTS = "arguments"


class ReplicaMetric(Metric):
    """A metric of R replicas at once: 1-D inputs give a scalar, ``[R, N]`` inputs give ``[R]``.

    The layout (R, or 1-D) is fixed by ``replicas`` or by the first update; another one later
    raises. It is a state, and before states are reduced all ranks agree on it, so a rank that saw
    no row takes part with zeros, or with no rows, of the right shape. (torchmetrics alone would
    contribute a float32 tensor of one axis there, which neither stacks nor concatenates.)

    Sum states are float64 or int64 of shape ``[R, ...]``; their defaults have R = 1 and broadcast.
    Cat states store rows first.

    Args:
        replicas: R of ``[R, N]`` inputs; ``None`` takes it from the first update.
        **kwargs: Of ``torchmetrics.Metric``.

    Raises:
        ValueError: If ``replicas`` is below 1.
    """

    is_differentiable = False
    full_state_update = False  # a batch's sums need no other batch
    layout: Tensor

    def __init__(self, *, replicas: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if replicas is not None and replicas < 1:
            raise ValueError(f"replicas must be at least 1, got {replicas}.")
        self._empty_rows: dict[str, tuple[torch.dtype, bool]] = {}
        self._result_shape: tuple[int, ...] = ()
        # replicas, and the width of the features (0 for metrics without)
        layout = torch.tensor([UNKNOWN if replicas is None else replicas, UNKNOWN])
        self.add_state("layout", layout, dist_reduce_fx=_common_layout)

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        """Add a sum state of shape ``[R, *shape]``."""
        self.add_state(name, torch.zeros(1, *shape, dtype=dtype), dist_reduce_fx="sum")

    def add_arguments(self, *arguments: Any) -> None:
        """Add a state of what ``update`` computes by, beside its inputs.

        ``MetricCollection`` takes metrics whose states agree after a batch for one another; sums
        over bins may agree though their edges differ. It allows for rounding, so the state is a
        digest, whose bytes are equal or not.
        """
        text = repr([x.tolist() if isinstance(x, Tensor) else x for x in arguments])
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        self.add_state(_ARGUMENTS, torch.tensor(list(digest)), dist_reduce_fx=_same_arguments)

    def add_rows(
        self, name: str, *, dtype: torch.dtype = torch.float64, shared: bool = False
    ) -> None:
        """Add a state that keeps every row, ``[N, R]``, or ``[N]`` if shared by the replicas."""
        self.add_state(name, [], dist_reduce_fx="cat")
        self._empty_rows[name] = (dtype, shared)

    def keep(self, name: str, rows: Tensor) -> None:
        """Append rows, ``[R, N]`` or ``[N]``, to a state of :meth:`add_rows`."""
        dtype, shared = self._empty_rows[name]
        # copied: a view would keep the caller's tensor alive and change with it
        rows = (rows if shared else rows.T).detach().to(dtype, copy=True)
        getattr(self, name).append(rows.contiguous())

    def rows(self, name: str) -> Tensor:
        """All rows of a state of :meth:`add_rows`, ``[R, N]`` or ``[N]``."""
        _, shared = self._empty_rows[name]
        state: Tensor | list[Tensor] = getattr(self, name)  # one tensor once synchronised
        if isinstance(state, list):
            state = torch.cat(state) if state else self._no_rows(name)
        return state if shared else state.T

    def read(self, *, width: int = 0, **inputs: tuple[Tensor | None, Rule]) -> tuple[Tensor, ...]:
        """Check the inputs, fix the layout, and return them as ``[R, N]`` without gradient.

        Each input is ``[N]`` or ``[R, N]``; beside a ``[R, N]`` one, ``[N]`` is shared by all
        replicas. ``None`` stands for ones. The metric is unchanged if this raises.
        """
        owner = type(self).__name__
        given = {key: (x.detach(), rule) for key, (x, rule) in inputs.items() if x is not None}
        shapes = {key: tuple(x.shape) for key, (x, _) in given.items()}
        largest = max(shapes.values(), key=len)
        if (
            len(largest) not in (1, 2)
            or 0 in largest[:-1]
            or any(shape not in (largest, largest[-1:]) for shape in shapes.values())
        ):
            raise ValueError(
                f"{owner} needs inputs of one shape, [N] or [R, N] (then [N] is shared by the "
                f"replicas), got {shapes}."
            )
        replicas = largest[0] if len(largest) == 2 else FLAT
        for known, new in zip(self.layout.tolist(), (replicas, width), strict=True):
            if known not in (UNKNOWN, new):
                raise ValueError(
                    f"{owner} holds {self._describe(*self.layout.tolist())} and cannot add "
                    f"{self._describe(replicas, width)}; reset it or use another instance."
                )
        check(owner, given)
        self.layout = torch.tensor([replicas, width], device=self.layout.device)
        shape = (max(replicas, 1), largest[-1])
        one = torch.ones((), dtype=torch.float64, device=self.layout.device)
        return tuple((one if x is None else x.detach()).expand(shape) for x, _ in inputs.values())

    def per_replica(self, value: Tensor) -> Tensor:
        """The result ``[R]``, or a scalar for 1-D inputs."""
        replicas = int(self.layout[0])
        self._result_shape = (replicas,) if replicas > 0 else ()
        return value.reshape(self._result_shape)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Plot ``val``, one or more results, or the current result; returns figure and axes."""
        return self._plot(val, ax)

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        wrapped = super()._wrap_compute(compute)

        # torchmetrics squeezes every one-element result; R = 1 shall give [1] all the same
        def reshaped(*args: Any, **kwargs: Any) -> Any:
            return wrapped(*args, **kwargs).reshape(self._result_shape)

        return reshaped

    def _sync_dist(
        self,
        dist_sync_fn: Callable[..., Any] = gather_all_tensors,
        process_group: Any | None = None,
    ) -> None:
        group = process_group or self.process_group
        layouts = torch.stack(dist_sync_fn(self.layout, group=group))
        self.layout = _common_layout(layouts)  # raises on every rank, so that none waits
        for name, default in self._defaults.items():
            state = getattr(self, name)
            if isinstance(default, list):
                if not state:
                    setattr(self, name, [self._no_rows(name)])
            elif name not in ("layout", _ARGUMENTS):
                setattr(self, name, state.expand(self._sum_shape(default)).contiguous())
        super()._sync_dist(dist_sync_fn, process_group)

    @staticmethod
    def _describe(replicas: int, width: int) -> str:
        kind = "1-D inputs" if replicas == FLAT else f"inputs of {replicas} replicas"
        return kind if width <= 0 else f"{kind} with {width} features"

    def _sum_shape(self, default: Tensor) -> tuple[int, ...]:
        """Shape of a sum state once the layout is known."""
        return (max(int(self.layout[0]), 1), *default.shape[1:])

    def _no_rows(self, name: str) -> Tensor:
        dtype, shared = self._empty_rows[name]
        shape = (0,) if shared else (0, max(int(self.layout[0]), 1))
        return torch.empty(shape, dtype=dtype, device=self.device)


def _same_arguments(digests: Tensor) -> Tensor:
    """The one digest of all ranks, ``[..., 16]``."""
    if bool((digests != digests[0]).any()):
        raise ValueError(
            "Metric states of other arguments, such as edges of bins, cannot be joined; construct "
            "the metric alike in every process."
        )
    return digests[0]


def _common_layout(layouts: Tensor) -> Tensor:
    """The one layout of several states, ``[..., 2]``, where some may not know it yet."""
    common = []
    for values in layouts.T.tolist():
        known = sorted(set(values) - {UNKNOWN})
        if len(known) > 1:
            raise ValueError(
                f"Metric states of different layouts cannot be joined: {known} replicas or "
                "features; give every process the same kind of input."
            )
        common.append(known[0] if known else UNKNOWN)
    return torch.tensor(common, device=layouts.device)
