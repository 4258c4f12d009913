"""Work that is done in several processes of this machine, each of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import TypeVar

from upo.core.console import quiet
from upo.errors import InputError

CLEANING = 5.0  # seconds that a process may take to end once all is done

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int
) -> Iterator[Result]:
    """What ``work`` gives for each task, in the order in which they end.

    The processes share nothing with this one, share the cores of the machine evenly, and end
    with the one that asks, also where a signal ends that. Ctrl-C is for it alone to answer.

    Args:
        work: A function of a module; it should answer, not raise.
        tasks: Can be pickled.
        jobs: Processes, at least 1.

    Raises:
        InputError: If the system has ended one of the processes.
    """
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, _context(work), _begin, (jobs,))
    patience = 0.0
    try:
        waiting: list[Future[Result]] = [pool.submit(work, task) for task in tasks]
        for done in as_completed(waiting):
            yield done.result()
        patience = CLEANING
    except BrokenProcessPool as error:
        raise InputError(
            f"the system has ended one of {jobs} processes, as it does where memory runs out; the "
            "same command goes on where they stopped: give fewer jobs=."
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        ours = [process for process in multiprocessing.active_children() if process not in others]
        for process in ours:
            process.join(patience)  # with nothing left to do they end by themselves, and clean up
            process.terminate()
        for process in ours:
            process.join()


def _context(work: Callable[[Task], Result]) -> BaseContext:
    """Processes that share nothing with this one; where it can be, they share their imports."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context


def _begin(jobs: int) -> None:
    import torch  # not for whoever only asks

    quiet()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_whoever_asks, daemon=True).start()
    torch.set_num_threads(max((os.cpu_count() or 1) // jobs, 1))


def _end_with_whoever_asks() -> None:
    asks = multiprocessing.parent_process()
    if asks is not None:
        asks.join()
        os._exit(1)  # it was killed; whatever has been written is complete
