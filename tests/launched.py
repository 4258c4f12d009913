"""``train.py`` as the tests launch it: a process notes what it writes, and may die at a write."""

import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAIVE = [  # a run of a second
    "dataset.n_users=40",
    "dataset.n_items=30",
    "dataset.density=0.2",
    "estimator=naive",
    "estimator.stages.debias.epochs=3",
    "trainer.accelerator=cpu",
    "progress=false",
    "figures=false",
]


def watch(folder, notes=None, kill=None):
    """Note every file that is opened for writing or moved into ``folder``.

    Args:
        folder: The run folder.
        notes: File that gets a line for each, where given.
        kill: Name of a file, and at which of its writes (from 1) this process and those of its
            group get a signal, SIGKILL if no third is given: just before the finished file is moved
            into its place.
    """
    log = None if notes is None else os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen = 0

    def hook(event, args):
        nonlocal seen
        if event == "os.rename":
            path = args[1]
        elif event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            path = args[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        path = os.fspath(path)
        if not path.startswith(str(folder)):
            return
        if log is not None:
            os.write(log, (path + "\n").encode())
        if kill is not None and event == "os.rename" and Path(path).name == kill[0]:
            seen += 1
            if seen == kill[1]:
                os.killpg(0, kill[2] if len(kill) > 2 else signal.SIGKILL)

    sys.addaudithook(hook)


def train(*overrides, folder=None, kill=None, quiet=True):
    """Run the command line in this process, as the leader of a group of its own."""
    import torch

    from upo import cli

    os.setpgid(0, 0)
    os.chdir(ROOT)
    torch.set_num_threads(1)
    if quiet:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    if kill is not None:
        watch(folder, kill=kill)
    sys.argv = [str(ROOT / "train.py"), *overrides]
    cli.main()


def _as_script():
    folder = Path(os.environ["LAUNCHED_FOLDER"])
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    name, _, count = os.environ.get("LAUNCHED_KILL", "").partition(":")
    kill = (name, int(count)) if name and rank == "0" else None
    watch(folder, folder.parent / f"{folder.name}-rank{rank}.txt", kill)
    import torch

    from upo import cli

    torch.set_num_threads(1)
    cli.main()


if __name__ == "__main__":
    _as_script()
