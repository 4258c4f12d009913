"""Ways to spoil a saved model or a run folder: functions of where it is and of the canary.

``CANARY`` stands for a file that must never come to be: whoever runs what a folder names makes it.
"""

import os
import pickle
import zipfile

import torch

CANARY = "CANARY"


class Call:
    """Pickled, a call that makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def load(path):
    return torch.load(path, weights_only=True)


def content(**parts):
    """Parts of the content replaced; a function gets the content."""

    def spoil(path, canary):
        inside = load(path)
        for name, value in parts.items():
            inside[name] = value(inside) if callable(value) else value
        torch.save(inside, path)

    return spoil


def config(change):
    """The YAML of the estimator changed."""

    def spoil(path, canary):
        inside = load(path)
        inside["config"] = change(inside["config"].replace("\r", "")).replace(CANARY, str(canary))
        torch.save(inside, path)

    return spoil


def network_target(name, extra=""):
    """The prediction network is another thing."""
    old = "_target_: upo.models.factorization.MatrixFactorization"
    return config(lambda text: text.replace(old, f"_target_: {name}{extra}", 1))


def file_bytes(change):
    def spoil(path, canary):
        path.write_bytes(change(path.read_bytes()))

    return spoil


def archive(change):
    """The members of the archive changed, and stored as before."""

    def spoil(path, canary):
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        kind = change(members) or zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as new:
            for name, data in members.items():
                new.writestr(name, data)

    return spoil


def description(make):
    """The description of the archive replaced."""

    def change(members):
        name = next(n for n in members if n.endswith("data.pkl"))
        members[name] = make(members[name])

    return archive(change)


def weights(change):
    """The tensors of the networks changed."""

    def spoil(path, canary):
        inside = load(path)
        state = inside["networks"] if "networks" in inside else inside["estimator"]
        change(state)
        torch.save(inside, path)

    return spoil


def first_weight(value):
    def change(state):
        name = next(k for k, v in state.items() if k.startswith("networks.") and v.numel() > 4)
        state[name] = value(state[name])

    return weights(change)


def call(path, canary):
    torch.save({"schema": 2, "config": Call(canary)}, path)


def plain_pickle(path, canary):
    path.write_bytes(pickle.dumps(Call(canary)))


def legacy(path, canary):
    torch.save(load(path), path, _use_new_zipfile_serialization=False)


def symlink(path, canary):
    path.unlink()
    path.symlink_to("/dev/zero")


def fifo(path, canary):
    path.unlink()
    os.mkfifo(path)


def self_reference(path, canary):
    inside = load(path)
    inside["params"] = {"seeds": []}
    inside["params"]["seeds"].append(inside["params"]["seeds"])
    torch.save(inside, path)


def laughs(path, canary):
    inside, inner = load(path), ["ha"]
    for _ in range(40):
        inner = [inner, inner]
    torch.save({**inside, "params": {"x": inner}}, path)


def memo_bomb(data):
    puts = b"".join(b"r" + k.to_bytes(4, "little") for k in range(0, 2**31, 2**10))
    return b"\x80\x02}" + puts + b"."


def run_yaml(old, new):
    def spoil(folder, canary):
        path = folder / ".hydra" / "config.yaml"
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new.replace(CANARY, str(canary)), 1))

    return spoil


def checkpoint(spoil):
    return lambda folder, canary: spoil(folder / "checkpoints" / "debias.pt", canary)


def run_file(name, make):
    def spoil(folder, canary):
        make(folder / name, canary)

    return spoil
