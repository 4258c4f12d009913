"""Processes of their own in which the tests train, forked from one that has imported upo."""

import multiprocessing

import launched
import torch
from torch import distributed as dist
from torch.multiprocessing import start_processes

FORK = multiprocessing.get_context("forkserver")
# imports once, not for each run
FORK.set_forkserver_preload(["upo.cli", "upo.tuning", "upo.benchmark", "upo.figures"])


def start(*overrides, **options):
    """A process of its own that trains."""
    process = FORK.Process(target=launched.train, args=overrides, kwargs=options)
    process.start()
    return process


def together(work, count, *args):
    """Run ``work(rank, *args)`` in so many processes that have imported upo, to their ends."""
    start_processes(work, args=args, nprocs=count, start_method="forkserver")


def found_by_ranks(find, sizes, folder, *args):
    """Size -> what ``find(rank, size, *args)`` gives on each rank of a group of that size.

    The ranks of two are also ranks of three.
    """
    together(_in_groups, max(sizes), find, sizes, str(folder), args)
    return {n: [torch.load(folder / f"{n}-{r}.pt") for r in range(n)] for n in sizes}


def _in_groups(rank, find, sizes, folder, args):
    torch.set_num_threads(1)
    for size in sizes:
        if rank < size:
            dist.init_process_group(
                "gloo", init_method=f"file://{folder}/init{size}", rank=rank, world_size=size
            )
            torch.save(find(rank, size, *args), f"{folder}/{size}-{rank}.pt")
            dist.destroy_process_group()
