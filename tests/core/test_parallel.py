"""Work in several processes: every answer once, and no process that outlives whoever asked."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes  # noqa: F401 - those that are started here have made their imports
import pytest
import torch

from upo.core.parallel import in_processes
from upo.errors import InputError


def answer(task):
    return task, os.getpid(), torch.get_num_threads()


def last(task):
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "endless":
        time.sleep(600)
    return task


def endless(task):
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(600)


LOCKS = []


def locked(task):
    LOCKS.append(multiprocessing.RLock())  # as every progress bar has; kept as long as the process
    return task


def test_every_task_is_answered_elsewhere():
    found = list(in_processes(answer, range(5), 2))
    assert sorted(task for task, _, _ in found) == list(range(5))
    assert os.getpid() not in {process for _, process, _ in found}
    assert {threads for _, _, threads in found} == {max(os.cpu_count() // 2, 1)}


def test_a_process_that_the_system_ends_is_said():
    with pytest.raises(InputError, match="ended one of 2 processes"):
        list(in_processes(last, ["killed", "endless"], 2))
    assert not multiprocessing.active_children()


def test_an_answer_that_nobody_waits_for_ends_with_its_process():
    answers = in_processes(last, ["short", "endless"], 2)
    assert next(answers) == "short"
    answers.close()  # as a signal does
    assert not multiprocessing.active_children()


def started(code, **kwargs):
    """A process that imports this module as ``t``."""
    path = os.pathsep.join(filter(None, sys.path))
    words = [sys.executable, "-c", f"import test_parallel as t; {code}"]
    return subprocess.Popen(words, text=True, env={**os.environ, "PYTHONPATH": path}, **kwargs)


def test_a_process_that_is_done_cleans_up():
    code = "print(sorted(t.in_processes(t.locked, [1, 2, 3], 2)))"
    with started(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asks:
        out, said = asks.communicate()
    assert (out, said) == ("[1, 2, 3]\n", "")  # the tracker of locks says which were left


@pytest.mark.slow
def test_they_end_with_a_process_that_is_killed():
    code = "list(t.in_processes(t.endless, [1, 2], 2))"
    with started(code, stdout=subprocess.PIPE) as asks:
        workers = [int(asks.stdout.readline()) for _ in range(2)]
        asks.kill()
    until = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/stat").exists() for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.05)
