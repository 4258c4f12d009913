"""Freed memory stays while training, and goes back after."""

import resource
import subprocess
import sys

import pytest
import torch

from upo.core import memory as allocator
from upo.core.memory import freed_memory_kept

MIB = 2**20


def faults(steps=20):
    """Page faults of steps that allocate and free 64 MiB each."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(16 * MIB)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def main():
    torch.set_num_threads(1)
    with freed_memory_kept() as kept:
        faults(8)  # the heap grows to what the steps need
        inside = faults()
    sys.stdout.write(f"{kept} {inside} {faults()}\n")


def test_freed_memory_is_used_again():
    """In a process of its own: what other tests have freed would serve too."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    kept, inside, outside = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc")
    # 64 MiB are 16,384 pages of 4 KiB, or 32 of 2 MiB, faulted in at each of 20 steps
    assert int(outside) > 20 * 32
    assert int(inside) < int(outside) / 10


def test_elsewhere_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    with freed_memory_kept() as kept:
        assert not kept


if __name__ == "__main__":
    main()
