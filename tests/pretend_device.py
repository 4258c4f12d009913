"""A device in the memory of this one, to find what a machine without a GPU hides.

Its tensors say that they lie on the device ``DEVICE`` and wrap ones of the CPU. Within ``Pretend``
every operation is checked: tensors of the device and of the CPU do not mix (numbers without an axis
do, as on a GPU), NumPy gets nothing, and what would make the host wait for a GPU is counted.
"""

import traceback
from collections import Counter
from functools import cache
from itertools import chain

import torch
from lightning.pytorch.accelerators import MPSAccelerator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map

from upo.training import recording

DEVICE = torch.device("lazy", 0)  # a kind that autograd runs in its caller's thread
aten = torch.ops.aten

# what may take tensors of two devices; the first that may wait
COPIES = {aten._to_copy, aten.copy_}
# what waits until the device has come to it, as a size or a number depends on values
WAITS = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal, aten.is_nonzero),
    *(aten._unique2, aten._unique, aten.unique_dim, aten.unique_consecutive, aten.bincount),
}
# numbers without an axis mix with tensors of the device, but not in these
STRICT = {
    *(aten.cat, aten.stack, aten.gather, aten.index_select, aten.index_add, aten.index_add_),
    *(aten.scatter_add, aten.scatter_add_, aten.searchsorted, aten.bucketize, aten._fused_adam_),
}


# of floats, a GPU adds these in an order that changes from run to run, in no other way
UNORDERED = {aten.cumsum, aten.cumsum_, aten.cumprod, aten.histc, aten.put, aten.put_}


class MixedDevicesError(RuntimeError):
    """An operation got tensors of two devices."""


class OnDevice(torch.Tensor):
    """A tensor of the device, which wraps its values."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise MixedDevicesError(f"{func} on the device outside of Pretend")

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError(f"can't convert a tensor of {DEVICE} to numpy; copy it to the CPU first")

    __array__ = numpy


class Pretend(TorchDispatchMode):
    """Keeps the device apart within the block.

    Args:
        float64: Whether the device knows float64, which Apple's does not.

    Attributes:
        waits: Where the host had to wait for the device, by operation and line of upo.
    """

    def __init__(self, *, float64=True):
        super().__init__()
        self.float64 = float64
        self.waits = Counter()

    def __enter__(self):
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them here and copies them
        return super().__enter__()

    def __exit__(self, *raised):
        torch._C._set_only_lift_cpu_tensors(False)
        return super().__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        tensors = list(_tensors((*args, *kwargs.values())))
        there = [isinstance(x, OnDevice) for x in tensors]
        if any(there) and packet not in COPIES:
            self._check_places(func, tensors)
        if any(there) and packet in UNORDERED and tensors[0].is_floating_point():
            raise RuntimeError(f"{func} of floats has no deterministic algorithm on the device")
        on_device, given = any(there), {**kwargs}
        if kwargs.get("device") is not None:
            on_device = torch.device(kwargs["device"]).type == DEVICE.type
            given["device"] = torch.device("cpu")
        elif packet is aten.copy_:
            on_device = there[0]
        self._count(func, args, kwargs, tensors, there, on_device)
        found = func(*_inner(args), **{key: _inner(value) for key, value in given.items()})
        if not on_device:
            return found
        found = tree_map(self._wrapped, found)
        return return_and_correct_aliasing(func, args, kwargs, found) if _aliases(func) else found

    def _wrapped(self, x):
        if not isinstance(x, torch.Tensor) or isinstance(x, OnDevice):
            return x
        if x.dtype == torch.float64 and not self.float64:
            raise TypeError("this device knows no float64")
        return OnDevice(x)

    @staticmethod
    def _check_places(func, tensors):
        strict = func.overloadpacket in STRICT
        wrong = [x for x in tensors if not isinstance(x, OnDevice) and (x.dim() or strict)]
        if wrong:
            shapes = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in tensors)
            raise MixedDevicesError(f"{func} got {shapes}")

    def _count(self, func, args, kwargs, tensors, there, on_device):
        packet = func.overloadpacket
        if packet in COPIES and tensors:
            waits = len({*there, on_device}) > 1 and not _unhurried(tensors, args, kwargs)
        elif packet in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            waits = any(there) and any(x.dtype == torch.bool for x in tensors[1:])
        else:
            waits = any(there) and packet in WAITS
        if waits:
            self.waits[f"{packet} at {_line()}"] += 1


def _unhurried(tensors, args, kwargs):
    """Whether a copy is one to the device that the host has said it will not wait for."""
    to_device = not isinstance(tensors[-1], OnDevice)
    return to_device and bool(kwargs.get("non_blocking", args[2:] and args[2]))


def _tensors(values):
    for x in values:
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, list | tuple):
            yield from _tensors(x)


def _inner(x):
    if isinstance(x, list | tuple):
        return type(x)(map(_inner, x))
    return x.inner if isinstance(x, OnDevice) else x


@cache
def _aliases(func):
    """Whether an operation gives back a view or changes what it gets."""
    return any(x.alias_info for x in (*func._schema.arguments, *func._schema.returns))


def _line():
    frames = [f for f in traceback.extract_stack() if "/upo/" in f.filename]
    return " < ".join(f"{f.filename.rsplit('/upo/')[-1]}:{f.lineno}" for f in frames[:-4:-1])


def offer(monkeypatch):
    """Let Lightning find the device, where it looks for Apple's: ``trainer.accelerator=mps``."""
    monkeypatch.setattr(MPSAccelerator, "is_available", staticmethod(lambda: True))
    monkeypatch.setattr(MPSAccelerator, "parse_devices", staticmethod(lambda _: [0]))
    monkeypatch.setattr(MPSAccelerator, "get_parallel_devices", staticmethod(lambda _: [DEVICE]))
    monkeypatch.setattr(MPSAccelerator, "setup_device", lambda *_: None)
    monkeypatch.setattr(MPSAccelerator, "teardown", lambda _: None)
    monkeypatch.setattr(nn.Module, "_apply", _swapped)
    monkeypatch.setattr(recording, "PLAIN", (*recording.PLAIN, OnDevice))


_apply = nn.Module._apply


def _swapped(module, fn, recurse=True):
    """``nn.Module._apply`` that swaps tensors for the device's: optimisers keep their parameters.

    What is there already may be in use, and is not swapped for itself.
    """
    probe = fn(torch.zeros(()))
    there = all(x.device == probe.device for x in chain(module.parameters(), module.buffers()))
    if there and probe.dtype == torch.float32:
        return module
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(probe.device == DEVICE)
    try:
        return _apply(module, fn, recurse)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
