"""Folders as somebody with other plans would make them: saved models, run folders, results."""

import io
import os
import shutil
import zipfile

import torch
from spoilers import (
    CANARY,
    archive,
    call,
    checkpoint,
    config,
    content,
    description,
    fifo,
    file_bytes,
    first_weight,
    laughs,
    legacy,
    memo_bomb,
    network_target,
    plain_pickle,
    run_file,
    run_yaml,
    self_reference,
    symlink,
    weights,
)

MODELS = {
    # code
    "a call in the pickle": call,
    "a plain pickle": plain_pickle,
    "the legacy format": legacy,
    "os.system": network_target("os.system"),
    "a module's import": network_target("upo.models.factorization.torch.nn.Linear"),
    "another module's name": network_target("upo.models.factorization.ReplicaEmbedding"),
    "pandas behind a prefix": network_target("upo.data.frames.pd.read_pickle"),
    "pyarrow behind a prefix": network_target("upo.data.table.pa.OSFile"),
    "a function of ours": network_target("upo.models.factorization.check_dim"),
    "a dataset as a network": network_target("upo.data.synthetic.SyntheticDataModule"),
    "a learner as a network": network_target("upo.learners.prediction.PredictionLearner"),
    "dunder path": network_target("upo.models.factorization.__builtins__.eval"),
    "a package": network_target("upo.models"),
    "an empty name": network_target('""'),
    "a name of spaces": network_target('" "'),
    "a hidden submodule": network_target("upo.models..factorization.MatrixFactorization"),
    "escaped reference in a target": network_target(r"'\${name}'"),
    "reference in a target": network_target("'${oc.env:HOME}'"),
    "twice escaped": network_target(r"'\\\${oc.env:HOME}'"),
    "resolver in an argument": config(lambda t: t.replace("dim: 16", "dim: '${oc.env:HOME}'")),
    "reference in an argument": config(lambda t: t.replace("dim: 16", r"dim: '\${name}'")),
    "positional arguments": network_target(
        "upo.models.factorization.MatrixFactorization", "\n    _args_: [1]"
    ),
    "recursive": network_target(
        "upo.models.factorization.MatrixFactorization", "\n    _recursive_: true"
    ),
    "convert": network_target(
        "upo.models.factorization.MatrixFactorization", "\n    _convert_: object"
    ),
    "nested target": config(
        lambda t: t.replace("dim: 16", f"dim: {{_target_: os.mkdir, path: '{CANARY}'}}")
    ),
    "nested in a list": config(
        lambda t: t.replace("dim: 16", f"dim: [{{_target_: os.mkdir, path: '{CANARY}'}}]")
    ),
    "a key twice": config(lambda t: t.replace("dim: 16", "dim: 16\n    dim: 16")),
    "weighting of another library": config(
        lambda t: t.replace("upo.models.weighting.ClippedPropensity", "builtins.dict")
    ),
    "bins of another library": config(
        lambda t: t + f"\nform:\n  _target_: os.mkdir\n  path: {CANARY}\n"
    ),
    "YAML that calls": config(lambda t: t + f"\nx: !!python/object/apply:os.mkdir ['{CANARY}']\n"),
    # more than is there
    "aliases": config(
        lambda t: (
            t
            + "\na0: &a0 [ha]\n"
            + "".join(f"a{k}: &a{k} [*a{k - 1},*a{k - 1},*a{k - 1}]\n" for k in range(1, 30))
        )
    ),
    "a long configuration": config(lambda t: t + "\n" + "x: 1\n" * 10**6),
    "a deep configuration": config(lambda t: t + "\nx: " + "[" * 50_000),
    "a long number": config(lambda t: t + "\nx: " + "9" * 900_000),
    "sixty based": config(lambda t: t + "\nx: 1" + ":59" * 100_000),
    "a huge embedding": config(lambda t: t.replace("dim: 16", "dim: 1000000000")),
    "a negative embedding": config(lambda t: t.replace("dim: 16", "dim: -1")),
    "an embedding of text": config(lambda t: t.replace("dim: 16", "dim: many")),
    "huge keys": content(keys=torch.tensor([0, 2**62])),
    "unsorted keys": content(keys=lambda c: c["keys"].flip(0)),
    "repeated keys": content(keys=lambda c: torch.zeros_like(c["keys"])),
    "negative keys": content(keys=lambda c: c["keys"] - 10**6),
    "keys of numbers with fractions": content(keys=lambda c: c["keys"].double()),
    "keys of two axes": content(keys=lambda c: c["keys"][None]),
    "no keys": content(keys=lambda c: c["keys"][:0]),
    "100,000 seeds": content(seeds=list(range(100_000))),
    "no seeds": content(seeds=[]),
    "a seed twice": content(seeds=lambda c: c["seeds"] * 2),
    "a negative seed": content(seeds=[-1]),
    "a seed of 70 bits": content(seeds=[2**70]),
    "seeds of text": content(seeds=["0"]),
    "ids twice": content(user_ids=lambda c: [c["user_ids"][0]] * len(c["user_ids"])),
    "no ids": content(item_ids=[]),
    "mixed ids": content(item_ids=lambda c: [1, *c["item_ids"][1:]]),
    "lists as ids": content(item_ids=lambda c: [[x] for x in c["item_ids"]]),
    "huge ids": content(user_ids=lambda c: [10**30 + k for k in range(len(c["user_ids"]))]),
    "columns alike": content(columns=["a", "a"]),
    "columns of numbers": content(columns=[1, 2]),
    "three columns": content(columns=["a", "b", "c"]),
    "metrics of lists": content(metrics={"auc": [[1]]}),
    "metrics of uneven length": content(metrics={"auc": [1.0] * 7}),
    "parameters as a list": content(params=[1]),
    "networks as a list": content(networks=[1]),
    "no networks": content(networks={}),
    "no configuration": content(config=None),
    "schema of a list": content(schema=[2]),
    "another schema": content(schema=99),
    "weights of NaN": first_weight(lambda w: w * float("nan")),
    "infinite weights": first_weight(lambda w: w / 0),
    "weights of whole numbers": first_weight(lambda w: w.long()),
    "stride of 0": first_weight(lambda w: torch.zeros(1).expand(10**9)),
    "other shapes": first_weight(lambda w: w.flatten()[:3]),
    "a tensor too many": weights(lambda s: s.update(more=torch.zeros(3))),
    "a tensor too few": weights(lambda s: s.pop(next(iter(s)))),
    "contains itself": self_reference,
    "parts that contain parts": laughs,
    "a link to a device": symlink,
    "a pipe": fifo,
    "a folder": lambda path, canary: (path.unlink(), path.mkdir()),
    "empty": file_bytes(lambda b: b""),
    "cut": file_bytes(lambda b: b[: len(b) // 2]),
    "noise": file_bytes(lambda b: os.urandom(1000)),
    "one bit": file_bytes(lambda b: b[:3000] + bytes([b[3000] ^ 1]) + b[3001:]),
    "zip bomb": archive(lambda m: m.update({"archive/data/9": bytes(2**28)}) or 8),
    "compressed": archive(lambda m: zipfile.ZIP_DEFLATED),
    "shorter storages": archive(
        lambda m: m.update({n: d[:8] for n, d in m.items() if "/data/" in n})
    ),
    "longer storages": archive(
        lambda m: m.update({n: d + d for n, d in m.items() if "/data/" in n})
    ),
    "no storages": archive(lambda m: [m.pop(n) for n in list(m) if "/data/" in n] and None),
    "other byte order": archive(
        lambda m: m.update({n: b"big" for n in m if n.endswith("byteorder")})
    ),
    "an endless memo": description(memo_bomb),
    "half a pickle": description(lambda d: d[: len(d) // 2]),
    "marks": description(lambda d: b"\x80\x02" + b"(" * 2**24),
    "nested tuples": description(lambda d: b"\x80\x02)" + b"\x85" * 2**22 + b"."),
    "lists of lists": description(lambda d: b"\x80\x02]" + b"]a" * 2**24 + b"."),
    "a long text": description(lambda d: b"\x80\x02X\xff\xff\xff\xff" + d),
    "another protocol": description(lambda d: b"\x80\x04" + d[2:]),
    "no stop": description(lambda d: d[:-1]),
    "an attribute set": description(lambda d: b"\x80\x02cos\nsystem\n}b."),
    "a call of ours": description(lambda d: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."),
}

_DATA = "_target_: upo.data.synthetic.SyntheticDataModule"
_PROTOCOL = "_target_: upo.evaluation.protocols.Holdout"
RUNS = {
    "dataset of another library": run_yaml(_DATA, f"_target_: os.mkdir\n  path: {CANARY}"),
    "dataset behind a prefix": run_yaml(_DATA, "_target_: upo.data.table.pa.OSFile"),
    "dataset that truncates": run_yaml(
        _DATA, f"_target_: upo.data.table.pa.OSFile\n  path: {CANARY}\n  mode: w"
    ),
    "dataset by reference": run_yaml(_DATA, r"_target_: '\${estimator.name}'"),
    "dataset as a protocol": run_yaml(_DATA, _PROTOCOL),
    "abstract dataset": run_yaml(_DATA, "_target_: upo.data.datamodule.RatingDataModule"),
    "nested dataset": run_yaml(_DATA, f"{_DATA}\n  base:\n    _target_: os.mkdir\n    p: {CANARY}"),
    "a huge world": run_yaml("n_users: 30", "n_users: 2000000000"),
    "a huge world of few users": run_yaml("n_items: 20", "n_items: 40000000"),
    "a world of text": run_yaml("n_users: 30", "n_users: many"),
    "a wide world": run_yaml("dim: 4", "dim: 1000000000"),
    "a test of the whole": run_yaml("test_per_user: 16", "test_per_user: 2000000000"),
    "another world": run_yaml("n_users: 30", "n_users: 31"),
    "a name with a path": run_yaml("name: synthetic", "name: ../../evil"),
    "protocol of another library": run_yaml(_PROTOCOL, f"_target_: os.mkdir\n  path: {CANARY}"),
    "self-reference": run_yaml("share: 0.1", "share: ${protocol.share}"),
    "reference to the whole": run_yaml("share: 0.1", "share: ${protocol}"),
    "resolver": run_yaml("share: 0.1", "share: ${oc.decode:'1'}"),
    "no stages": run_yaml("stages:", "stage:"),
    "stage with a path": run_yaml("    debias:", "    ../../debias:"),
    "weights of NaN in a checkpoint": checkpoint(MODELS["weights of NaN"]),
    "stride of 0 in a checkpoint": checkpoint(MODELS["stride of 0"]),
    "zip bomb as a checkpoint": checkpoint(MODELS["zip bomb"]),
    "a call in a checkpoint": checkpoint(call),
    "100,000 seeds in a checkpoint": checkpoint(MODELS["100,000 seeds"]),
    "checkpoint as a pipe": checkpoint(fifo),
    "configuration as a pipe": run_file(".hydra/config.yaml", fifo),
    "configuration as a device": run_file(".hydra/config.yaml", symlink),
    "hydra.yaml as a list": run_file(".hydra/hydra.yaml", lambda p, c: p.write_text("[1]")),
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
