"""A recorded step as a CUDA graph: the GPU takes some hundred operations in one launch.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

Step = Callable[[list[Tensor], list[Tensor]], list[Tensor]]


def can_capture(device: torch.device) -> bool:
    """Whether operations on a device can be captured."""
    return device.type == "cuda"


class DeviceGraph:
    """The operations of a step, captured; every call takes them again.

    Nothing is computed while it is made.

    Args:
        step: Takes a step, given its state, which it changes in place, and what changes from step
            to step; returns what it logs, ``[R]`` each. It has run before.
        state: Where it is now, it is in every call.
        changing: Of one of the steps.

    Raises:
        RuntimeError: If an operation cannot be captured, as one that waits for the device.
    """

    def __init__(self, step: Step, state: list[Tensor], changing: list[Tensor]) -> None:
        self.state = state  # kept, so that no other tensor comes to be at its address
        self.places = _places(state)
        self.inputs = [x.clone() for x in changing]
        self.replay, self.results = _captured(lambda: torch.stack(step(state, self.inputs)))

    def holds(self, state: list[Tensor]) -> bool:
        """Whether the state is where it was captured."""
        return _places(state) == self.places

    def __call__(self, changing: list[Tensor]) -> list[Tensor]:
        """Take a step; returns what it logs, as a copy."""
        for mine, value in zip(self.inputs, changing, strict=True):
            mine.copy_(value, non_blocking=True)
        self.replay()
        return [*self.results.clone().unbind()]


def _places(tensors: list[Tensor]) -> list[int]:
    return [x.data_ptr() for x in tensors]


def _captured(function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """What takes the operations of a function again, and the tensor that it then writes."""
    graph = torch.cuda.CUDAGraph()
    # other threads, as those of loggers, may go on with their own work
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result


def hold_constants(module: GraphModule) -> None:
    """Put numbers that lie in host memory on the device once, in place of once a step."""
    copy = torch.ops.aten._to_copy.default
    for node in list(module.graph.nodes):
        value = _constant(module, node.args[0]) if node.target is copy else None
        device = node.kwargs.get("device")
        if value is None or device is None or value.device == device or value.device.type != "cpu":
            continue
        name = f"_held_{node.name}"
        module.register_buffer(name, copy(value, **node.kwargs), persistent=False)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(name))
        module.graph.erase_node(node)
    module.recompile()


def _constant(module: GraphModule, node: object) -> Tensor | None:
    """The tensor that a node fetches, which no step changes."""
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Tensor = getattr(module, str(node.target))
    return value
