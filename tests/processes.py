"""Processes of their own in which the tests train, forked from one that has imported upo."""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

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


def command(*words, cwd=launched.ROOT, env=()):
    """What ``python train.py ...``, or ``python -m MODULE ...``, prints and exits with.

    A process of its own, to its end, that has no imports to make.

    Args:
        words: A script of the checkout and its arguments, or ``-m``, a module and its arguments.
        cwd: Where it runs.
        env: Variables beside those of this process.

    Returns:
        As of `subprocess.run` with text.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = begin(*words, printed=Path(folder), cwd=cwd, env=env)
        process.join()
        said = [Path(folder, name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess(words, process.exitcode, *said)


def begin(*words, printed, cwd=launched.ROOT, env=()):
    """The process of `command`, which prints to the files ``out`` and ``err`` of a folder."""
    process = FORK.Process(target=_command, args=(words, str(cwd), dict(env), str(printed)))
    process.start()
    return process


def _command(words, cwd, env, printed):
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{printed}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(env)
    _run(words, cwd)


def _run(words, cwd):
    os.chdir(cwd)
    torch.set_num_threads(1)
    if words[0] == "-m":
        sys.argv = list(words[1:])
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [str(launched.ROOT / words[0]), *words[1:]]
        runpy.run_path(sys.argv[0], run_name="__main__")


def ranks(count, *words, env=(), timeout=240):
    """Start a script as so many ranks, with the variables that torchrun sets, to their ends.

    They and their leader are a group of their own, which one signal ends.

    Returns:
        Exit status of the leader: 0, the first that is not, or less the signal that ended it.
    """
    process = FORK.Process(target=_lead, args=(count, words, dict(env)))
    process.start()
    process.join(timeout)
    return process.exitcode


def _lead(count, words, env):
    os.setpgid(0, 0)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    of_all = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0}
    of_all |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({key: str(value) for key, value in of_all.items()} | env)
    null = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(null, number)
    started = [_fork(rank, words) for rank in range(count)]
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in started]
    sys.exit(next((abs(status) for status in statuses if status), 0))


def _fork(rank, words):
    pid = os.fork()
    if pid:
        return pid
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    status = 1
    try:
        _run(words, launched.ROOT)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(status)


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
