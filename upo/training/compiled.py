"""A recorded step that PyTorch's compiler has turned into a few loops of machine code."""

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.torch_version import TorchVersion

from upo.core.console import signals_first
from upo.errors import InputError
from upo.learners.base import GradientLearner
from upo.pairs.space import Batch
from upo.training.recording import Recording, traced

# Compiling takes some 20 seconds, and saves about 1 ms a step or 0.5 microseconds a pair.
LEAST_STEPS, LEAST_PAIRS = 15_000, 60_000_000
# With more of both, threads gain more in Adam's pass than the compiler does in its one.
FEW_THREADS, MOST_PARAMETERS = 2, 6_000_000  # the second over the number of threads

# With several threads the rows of a gradient would be added in a random order.
OPTIONS = {"cpp.threads": 1}


class CompilerError(InputError):
    """A step could not be compiled here."""


def compiling_pays(
    steps: int, pairs: int, parameters: int, device: torch.device, taken: int | None = None
) -> bool:
    """Whether compiling saves more time than it takes.

    Most stages stop by patience, long before their last epoch. So a stage that may be long enough
    is compiled once it has come half as far as is worth it.

    Args:
        steps: Steps of the stage, at most.
        pairs: Rows and pairs of all replicas in a step.
        parameters: Of all replicas.
        device: Where they are taken; only the CPU's code is compiled unasked.
        taken: Steps taken so far; None where that does not matter.
    """
    worth = _worth(steps, pairs) and (taken is None or _worth(2 * taken, pairs))
    threads = torch.get_num_threads()
    worth = worth and (threads <= FEW_THREADS or parameters * threads <= MOST_PARAMETERS)
    return worth and device.type == "cpu" and compiler_found()


def _worth(steps: int, pairs: int) -> bool:
    return steps >= LEAST_STEPS or steps * pairs >= LEAST_PAIRS


SINCE = "2.8"  # PyTorch's standalone_compile; before it, steps are recorded


def compiler_found() -> bool:
    """Whether PyTorch compiles recorded graphs and there is a C++ compiler, g++ or that of CXX."""
    takes_graphs = TorchVersion(torch.__version__) >= SINCE
    return takes_graphs and shutil.which(os.environ.get("CXX", "g++")) is not None


class CompiledStep(Recording):
    """A recording whose operations are joined, so that fewer tensors are written and read again.

    Sums are taken in another order than in a step, so results agree with it to rounding. Two
    compiled steps agree bit for bit. No step is taken while it is made, so a resumed run compiles
    where the uninterrupted one is at work with the same code.

    Args:
        learners: As of ``Recording``; their optimisers hold moments.
        batch: A batch of the shape that is compiled for.
    """

    taken = 0

    def _record(self, batch: Batch) -> Callable[..., list[Tensor]]:
        self._forget_gradients()  # they are made within the step, and need not outlive it
        optimizers, state, tensors = self._optimizers(), self._state(), self._tensors(batch)
        rates = list(chain(*(o.corrections(1)[0] for o in optimizers)))
        before = [x.clone() for x in state]

        def step(*inputs: Tensor) -> list[Tensor]:
            rest = iter(inputs[len(state) :])
            seen = batch.of([next(rest) for _ in tensors], labelled=self.labelled)
            for optimizer in optimizers:
                optimizer.corrected = next(rest), next(rest)
            return self._step(seen)

        inputs = [*state, *tensors, *rates]
        try:
            graph = traced(step, *inputs)
        finally:
            self._forget_gradients()
            with torch.no_grad():
                torch._foreach_copy_(state, before)
            for optimizer in optimizers:
                optimizer.corrected = None
        try:
            with signals_first():
                return _compiled(graph, inputs)
        except Exception as error:  # of the compiler's many parts and of the system's
            raise CompilerError(
                f"PyTorch's compiler failed ({_first_line(error)}); it needs a C++ compiler, g++ "
                "or the one that the environment variable CXX names. compile=false does without."
            ) from error

    def _forget_gradients(self) -> None:
        for table in self._tables():
            table.kept_gradients.pop(False, None)
        for learner in self.learners.values():
            if isinstance(learner, GradientLearner) and learner.by_rows:
                for table in learner.tables:  # sums of rows outlive it, as nothing clears them all
                    table.gradient(by_rows=True)
            for p in learner.estimator.networks[learner.network].parameters():
                p.grad = None

    def _run(self, batches: Sequence[Batch]) -> Iterator[list[Tensor]]:
        state, optimizers = self._state(), self._optimizers()
        corrections = [o.corrections(len(batches)) for o in optimizers]
        for number, batch in enumerate(batches):
            rates = chain(*(steps[number] for steps in corrections))
            yield self._once(state, [*self._tensors(batch), *rates])
        for optimizer in optimizers:
            optimizer.skip(len(batches))

    def _call(self, state: list[Tensor], changing: list[Tensor]) -> list[Tensor]:
        return self.graph(*state, *changing)

    def _state(self) -> list[Tensor]:
        """Parameters, buffers and moments; the numbers of steps enter as what follows from them."""
        counts = {id(s["step"]) for o in self._optimizers() for s in o.state.values()}
        return [x for x in super()._state() if id(x) not in counts]


def _compiled(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., list[Tensor]]:
    """Machine code of a recorded graph; PyTorch keeps it on disk for runs of the same sizes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's, about its own code
        from torch._inductor import standalone_compile  # takes a second

        code: Callable[..., list[Tensor]] = standalone_compile(
            graph,
            [*inputs],
            dynamic_shapes="from_example_inputs",
            options={"config_patches": OPTIONS},
        )
    return code


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
