"""Processes of their own in which the tests train, forked from one that has imported upo."""

import multiprocessing

import launched
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
