"""Freed memory stays while training, and goes back after."""

import ctypes
import subprocess
import sys

import pytest
import torch

from upo.core import memory as allocator
from upo.core.memory import freed_memory_kept

MIB = 2**20
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks")


class State(ctypes.Structure):
    """glibc's account of its memory: ``arena`` and ``hblkhd`` are bytes it holds of the system."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*FIELDS, "fordblks", "keepcost")]


def held():
    account = ctypes.CDLL(None).mallinfo2
    account.restype = State
    found = account()
    return found.arena + found.hblkhd


def goes_back(like):
    """Whether a block of such a size goes back to the system as soon as it is freed."""
    block = like + 1
    before = held()
    del block
    return before - held() >= like.nbytes


def main(mebibytes):
    torch.set_num_threads(1)
    like = torch.ones(mebibytes * MIB // 4)
    with freed_memory_kept() as kept:
        within = goes_back(like)
    sys.stdout.write(f"{kept} {within} {goes_back(like)}\n")


@pytest.mark.parametrize(("mebibytes", "after"), [(8, "False"), (64, "True")])
def test_freed_memory_is_used_again_and_later_treated_as_before(mebibytes, after):
    """In a process of its own: what other tests have freed would serve too."""
    call = [sys.executable, __file__, str(mebibytes)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    kept, *found = done.stdout.split()
    if kept == "False":
        pytest.skip("the C library is not glibc")
    # glibc itself comes to keep blocks of 8 MiB, and gives back what is larger than 32
    assert found == ["False", after]


def test_elsewhere_nothing_changes(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("musl", "1.2"))
    with freed_memory_kept() as kept:
        assert not kept


if __name__ == "__main__":
    main(int(sys.argv[1]))
