"""Folders as somebody with other plans would make them: saved models, run folders, results.

Each kind is a function that spoils a sound folder. ``CANARY`` stands for a file that must never
come to be: whoever runs what the folder names makes it.
"""

import io
import os
import pickle
import shutil
import zipfile

import torch

CANARY = "CANARY"


class _Runs:
    """Pickled, a call that makes the canary."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.mkdir, (str(self.canary),))


def _content(path):
    return torch.load(path, weights_only=True)


def _changed(**parts):
    """Parts of the content replaced; a function gets the content."""

    def spoil(path, canary):
        content = _content(path)
        for name, value in parts.items():
            content[name] = value(content) if callable(value) else value
        torch.save(content, path)

    return spoil


def _config(change):
    """The YAML of the estimator changed."""

    def spoil(path, canary):
        content = _content(path)
        content["config"] = change(content["config"].replace("\r", "")).replace(CANARY, str(canary))
        torch.save(content, path)

    return spoil


def _target(name, extra=""):
    """The prediction network is another thing."""
    old = "_target_: upo.models.factorization.MatrixFactorization"
    return _config(lambda text: text.replace(old, f"_target_: {name}{extra}", 1))


def _bytes(change):
    def spoil(path, canary):
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _archive(change):
    """The members of the archive changed, and stored as before."""

    def spoil(path, canary):
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        kind = change(members) or zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", kind) as new:
            for name, data in members.items():
                new.writestr(name, data)

    return spoil


def _pickle(make):
    """The description of the archive replaced."""

    def change(members):
        name = next(n for n in members if n.endswith("data.pkl"))
        members[name] = make(members[name])

    return _archive(change)


def _network(change):
    """The tensors of the networks changed."""

    def spoil(path, canary):
        content = _content(path)
        state = content["networks"] if "networks" in content else content["estimator"]
        change(state)
        torch.save(content, path)

    return spoil


def _first(value):
    def change(state):
        name = next(k for k, v in state.items() if k.startswith("networks.") and v.numel() > 4)
        state[name] = value(state[name])

    return _network(change)


def _runs(path, canary):
    torch.save({"schema": 2, "config": _Runs(canary)}, path)


def _plain_pickle(path, canary):
    path.write_bytes(pickle.dumps(_Runs(canary)))


def _legacy(path, canary):
    torch.save(_content(path), path, _use_new_zipfile_serialization=False)


def _symlink(path, canary):
    path.unlink()
    path.symlink_to("/dev/zero")


def _fifo(path, canary):
    path.unlink()
    os.mkfifo(path)


def _self_reference(path, canary):
    content = _content(path)
    content["params"] = {"seeds": []}
    content["params"]["seeds"].append(content["params"]["seeds"])
    torch.save(content, path)


def _laughs(path, canary):
    content, inner = _content(path), ["ha"]
    for _ in range(40):
        inner = [inner, inner]
    torch.save({**content, "params": {"x": inner}}, path)


def _memo_bomb(data):
    puts = b"".join(b"r" + k.to_bytes(4, "little") for k in range(0, 2**31, 2**10))
    return b"\x80\x02}" + puts + b"."


MODELS = {
    # code
    "a call in the pickle": _runs,
    "a plain pickle": _plain_pickle,
    "the legacy format": _legacy,
    "os.system": _target("os.system"),
    "a module's import": _target("upo.models.factorization.torch.nn.Linear"),
    "another module's name": _target("upo.models.factorization.ReplicaEmbedding"),
    "pandas behind a prefix": _target("upo.data.frames.pd.read_pickle"),
    "pyarrow behind a prefix": _target("upo.data.table.pa.OSFile"),
    "a function of ours": _target("upo.models.factorization.check_dim"),
    "a dataset as a network": _target("upo.data.synthetic.SyntheticDataModule"),
    "a learner as a network": _target("upo.learners.prediction.PredictionLearner"),
    "dunder path": _target("upo.models.factorization.__builtins__.eval"),
    "a package": _target("upo.models"),
    "an empty name": _target('""'),
    "a name of spaces": _target('" "'),
    "a hidden submodule": _target("upo.models..factorization.MatrixFactorization"),
    "escaped reference in a target": _target(r"'\${name}'"),
    "reference in a target": _target("'${oc.env:HOME}'"),
    "twice escaped": _target(r"'\\\${oc.env:HOME}'"),
    "resolver in an argument": _config(lambda t: t.replace("dim: 16", "dim: '${oc.env:HOME}'")),
    "reference in an argument": _config(lambda t: t.replace("dim: 16", r"dim: '\${name}'")),
    "positional arguments": _target(
        "upo.models.factorization.MatrixFactorization", "\n    _args_: [1]"
    ),
    "recursive": _target("upo.models.factorization.MatrixFactorization", "\n    _recursive_: true"),
    "convert": _target("upo.models.factorization.MatrixFactorization", "\n    _convert_: object"),
    "nested target": _config(
        lambda t: t.replace("dim: 16", f"dim: {{_target_: os.mkdir, path: '{CANARY}'}}")
    ),
    "nested in a list": _config(
        lambda t: t.replace("dim: 16", f"dim: [{{_target_: os.mkdir, path: '{CANARY}'}}]")
    ),
    "a key twice": _config(lambda t: t.replace("dim: 16", "dim: 16\n    dim: 16")),
    "weighting of another library": _config(
        lambda t: t.replace("upo.models.weighting.ClippedPropensity", "builtins.dict")
    ),
    "bins of another library": _config(
        lambda t: t + f"\nform:\n  _target_: os.mkdir\n  path: {CANARY}\n"
    ),
    "YAML that calls": _config(lambda t: t + f"\nx: !!python/object/apply:os.mkdir ['{CANARY}']\n"),
    # more than is there
    "aliases": _config(
        lambda t: (
            t
            + "\na0: &a0 [ha]\n"
            + "".join(f"a{k}: &a{k} [*a{k - 1},*a{k - 1},*a{k - 1}]\n" for k in range(1, 30))
        )
    ),
    "a long configuration": _config(lambda t: t + "\n" + "x: 1\n" * 10**6),
    "a deep configuration": _config(lambda t: t + "\nx: " + "[" * 50_000),
    "a long number": _config(lambda t: t + "\nx: " + "9" * 900_000),
    "sixty based": _config(lambda t: t + "\nx: 1" + ":59" * 100_000),
    "a huge embedding": _config(lambda t: t.replace("dim: 16", "dim: 1000000000")),
    "a negative embedding": _config(lambda t: t.replace("dim: 16", "dim: -1")),
    "an embedding of text": _config(lambda t: t.replace("dim: 16", "dim: many")),
    "huge keys": _changed(keys=torch.tensor([0, 2**62])),
    "unsorted keys": _changed(keys=lambda c: c["keys"].flip(0)),
    "repeated keys": _changed(keys=lambda c: torch.zeros_like(c["keys"])),
    "negative keys": _changed(keys=lambda c: c["keys"] - 10**6),
    "keys of numbers with fractions": _changed(keys=lambda c: c["keys"].double()),
    "keys of two axes": _changed(keys=lambda c: c["keys"][None]),
    "no keys": _changed(keys=lambda c: c["keys"][:0]),
    "100,000 seeds": _changed(seeds=list(range(100_000))),
    "no seeds": _changed(seeds=[]),
    "a seed twice": _changed(seeds=lambda c: c["seeds"] * 2),
    "a negative seed": _changed(seeds=[-1]),
    "a seed of 70 bits": _changed(seeds=[2**70]),
    "seeds of text": _changed(seeds=["0"]),
    "ids twice": _changed(user_ids=lambda c: [c["user_ids"][0]] * len(c["user_ids"])),
    "no ids": _changed(item_ids=[]),
    "mixed ids": _changed(item_ids=lambda c: [1, *c["item_ids"][1:]]),
    "lists as ids": _changed(item_ids=lambda c: [[x] for x in c["item_ids"]]),
    "huge ids": _changed(user_ids=lambda c: [10**30 + k for k in range(len(c["user_ids"]))]),
    "columns alike": _changed(columns=["a", "a"]),
    "columns of numbers": _changed(columns=[1, 2]),
    "three columns": _changed(columns=["a", "b", "c"]),
    "metrics of lists": _changed(metrics={"auc": [[1]]}),
    "metrics of uneven length": _changed(metrics={"auc": [1.0] * 7}),
    "parameters as a list": _changed(params=[1]),
    "networks as a list": _changed(networks=[1]),
    "no networks": _changed(networks={}),
    "no configuration": _changed(config=None),
    "schema of a list": _changed(schema=[2]),
    "another schema": _changed(schema=99),
    "weights of NaN": _first(lambda w: w * float("nan")),
    "infinite weights": _first(lambda w: w / 0),
    "weights of whole numbers": _first(lambda w: w.long()),
    "stride of 0": _first(lambda w: torch.zeros(1).expand(10**9)),
    "other shapes": _first(lambda w: w.flatten()[:3]),
    "a tensor too many": _network(lambda s: s.update(more=torch.zeros(3))),
    "a tensor too few": _network(lambda s: s.pop(next(iter(s)))),
    "contains itself": _self_reference,
    "parts that contain parts": _laughs,
    "a link to a device": _symlink,
    "a pipe": _fifo,
    "a folder": lambda path, canary: (path.unlink(), path.mkdir()),
    "empty": _bytes(lambda b: b""),
    "cut": _bytes(lambda b: b[: len(b) // 2]),
    "noise": _bytes(lambda b: os.urandom(1000)),
    "one bit": _bytes(lambda b: b[:3000] + bytes([b[3000] ^ 1]) + b[3001:]),
    "zip bomb": _archive(lambda m: m.update({"archive/data/9": bytes(2**28)}) or 8),
    "compressed": _archive(lambda m: zipfile.ZIP_DEFLATED),
    "shorter storages": _archive(
        lambda m: m.update({n: d[:8] for n, d in m.items() if "/data/" in n})
    ),
    "longer storages": _archive(
        lambda m: m.update({n: d + d for n, d in m.items() if "/data/" in n})
    ),
    "no storages": _archive(lambda m: [m.pop(n) for n in list(m) if "/data/" in n] and None),
    "other byte order": _archive(
        lambda m: m.update({n: b"big" for n in m if n.endswith("byteorder")})
    ),
    "an endless memo": _pickle(_memo_bomb),
    "half a pickle": _pickle(lambda d: d[: len(d) // 2]),
    "marks": _pickle(lambda d: b"\x80\x02" + b"(" * 2**24),
    "nested tuples": _pickle(lambda d: b"\x80\x02)" + b"\x85" * 2**22 + b"."),
    "lists of lists": _pickle(lambda d: b"\x80\x02]" + b"]a" * 2**24 + b"."),
    "a long text": _pickle(lambda d: b"\x80\x02X\xff\xff\xff\xff" + d),
    "another protocol": _pickle(lambda d: b"\x80\x04" + d[2:]),
    "no stop": _pickle(lambda d: d[:-1]),
    "an attribute set": _pickle(lambda d: b"\x80\x02cos\nsystem\n}b."),
    "a call of ours": _pickle(lambda d: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."),
}


def _yaml(old, new):
    def spoil(folder, canary):
        path = folder / ".hydra" / "config.yaml"
        text = path.read_text()
        assert old in text, old
        path.write_text(text.replace(old, new.replace(CANARY, str(canary)), 1))

    return spoil


def _checkpoint(spoil):
    return lambda folder, canary: spoil(folder / "checkpoints" / "debias.pt", canary)


def _file(name, make):
    def spoil(folder, canary):
        make(folder / name, canary)

    return spoil


_DATA = "_target_: upo.data.synthetic.SyntheticDataModule"
_PROTOCOL = "_target_: upo.evaluation.protocols.Holdout"
RUNS = {
    "dataset of another library": _yaml(_DATA, f"_target_: os.mkdir\n  path: {CANARY}"),
    "dataset behind a prefix": _yaml(_DATA, "_target_: upo.data.table.pa.OSFile"),
    "dataset that truncates": _yaml(
        _DATA, f"_target_: upo.data.table.pa.OSFile\n  path: {CANARY}\n  mode: w"
    ),
    "dataset by reference": _yaml(_DATA, r"_target_: '\${estimator.name}'"),
    "dataset as a protocol": _yaml(_DATA, _PROTOCOL),
    "abstract dataset": _yaml(_DATA, "_target_: upo.data.datamodule.RatingDataModule"),
    "nested dataset": _yaml(_DATA, f"{_DATA}\n  base:\n    _target_: os.mkdir\n    p: {CANARY}"),
    "a huge world": _yaml("n_users: 30", "n_users: 2000000000"),
    "a huge world of few users": _yaml("n_items: 20", "n_items: 40000000"),
    "a world of text": _yaml("n_users: 30", "n_users: many"),
    "a wide world": _yaml("dim: 4", "dim: 1000000000"),
    "a test of the whole": _yaml("test_per_user: 16", "test_per_user: 2000000000"),
    "another world": _yaml("n_users: 30", "n_users: 31"),
    "a name with a path": _yaml("name: synthetic", "name: ../../evil"),
    "protocol of another library": _yaml(_PROTOCOL, f"_target_: os.mkdir\n  path: {CANARY}"),
    "self-reference": _yaml("share: 0.1", "share: ${protocol.share}"),
    "reference to the whole": _yaml("share: 0.1", "share: ${protocol}"),
    "resolver": _yaml("share: 0.1", "share: ${oc.decode:'1'}"),
    "no stages": _yaml("stages:", "stage:"),
    "stage with a path": _yaml("    debias:", "    ../../debias:"),
    "weights of NaN in a checkpoint": _checkpoint(MODELS["weights of NaN"]),
    "stride of 0 in a checkpoint": _checkpoint(MODELS["stride of 0"]),
    "zip bomb as a checkpoint": _checkpoint(MODELS["zip bomb"]),
    "a call in a checkpoint": _checkpoint(_runs),
    "100,000 seeds in a checkpoint": _checkpoint(MODELS["100,000 seeds"]),
    "checkpoint as a pipe": _checkpoint(_fifo),
    "configuration as a pipe": _file(".hydra/config.yaml", _fifo),
    "configuration as a device": _file(".hydra/config.yaml", _symlink),
    "hydra.yaml as a list": _file(".hydra/hydra.yaml", lambda p, c: p.write_text("[1]")),
}

# overrides that a folder may not set for its reader
OVERRIDES = [
    "+hydra.callbacks.x._target_=os.mkdir",
    "hydra.launcher._target_=os.mkdir",
    "hydra/launcher=joblib",
    "hydra.run.dir=CANARY",
    "hydra.sweep.dir=CANARY",
    "hydra.job.chdir=true",
    "hydra/job_logging=none",
    "+x=1",
    "~hydra.runtime",
    "dataset._target_=os.mkdir",
    "++dataset.x._target_=os.mkdir",
    "estimator.networks.prediction={_target_:os.mkdir}",
    "estimator.networks.prediction.dim=${oc.env:HOME}",
    "+trainer.callbacks=[{_target_:os.mkdir}]",
    "+trainer.default_root_dir=CANARY",
    "logger.save_dir=CANARY",
    "dataset.download=true",
    "+dataset.cache_dir=CANARY",
    "experiment=../../CANARY",
    "estimator=/CANARY",
    "dataset@hydra.callbacks=synthetic",
    "dataset.name=../../CANARY",
    "--config-dir=CANARY",
    "-m",
    "-cp",
]


def spoiled(sound, to, kind, canary):
    """A copy of a sound folder, spoiled."""
    shutil.copytree(sound, to)
    if kind in MODELS:
        MODELS[kind](to / "model.pt", canary)
    else:
        RUNS[kind](to, canary)
    return to


def overrides_yaml(override, canary):
    """A record of overrides with a hostile one in its midst."""
    out = io.StringIO()
    for line in ("seeds=1", override.replace(CANARY, str(canary)), "progress=false"):
        out.write(f"- '{line}'\n")
    return out.getvalue()
