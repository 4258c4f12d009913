"""Checkpoints in parts, without processes: whatever number wrote them, whatever number reads."""

from functools import cache

import pytest
import torch
from small_runs import build, composed

from upo.core.shards import Shard, sharded
from upo.errors import InputError
from upo.training import part_files
from upo.training.checkpoint import save_atomically
from upo.training.part_files import files_of, read_parts, remove_others, without_tables
from upo.training.parts import parts_in

SEEDS = [0, 3]
SMALL = ["estimator.networks.prediction.dim=4", "estimator.networks.propensity.dim=4"]


@cache
def checkpoint(shard):
    """A stage of this process, and its checkpoint: networks, moments and the kept epoch."""
    with sharded(shard):
        estimator, modules = build(composed("ips", "backbone=mf", *SMALL), SEEDS)
    stage = modules[-1]
    for learner in stage.learners.values():
        for p in learner.params:
            learner.optimizer._started(p)["exp_avg"].copy_(2 * p.detach())
            learner.optimizer.state[p]["exp_avg_sq"].copy_(p.detach() ** 2)
    kept = {name: -value for name, value in estimator.networks.state_dict().items()}
    return stage, {
        "schema": 1,
        "estimator": estimator.state_dict(),
        "optimizers": {n: x.optimizer.state_dict()["state"] for n, x in stage.learners.items()},
        "selection": {"best": None, "snapshot": kept},
    }


def written(folder, of, stamp="3"):
    """The file of the stage that so many processes have written."""
    path = folder / "debias.pt"
    for number in range(of):
        shard = Shard(number, of)
        stage, content = checkpoint(shard)
        left, parts, taken = without_tables(content, stage, shard, stamp)
        for file, rows in files_of(parts, taken, shard, path):
            save_atomically(rows, file)
    return left, parts, path


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("size", [2**23, 800], ids=["one file", "several"])
@pytest.mark.parametrize(("of", "read_by"), [(1, 3), (3, 1), (3, 2)])
def test_any_number_of_processes_reads_what_any_number_wrote(
    tmp_path, monkeypatch, size, of, read_by
):
    monkeypatch.setattr(part_files, "PIECE", size)
    left, _, path = written(tmp_path, of)
    pieces = len(list(tmp_path.iterdir())) // (2 * of)
    assert (pieces > 1) == (size < 2**23)
    for number in range(read_by):
        shard = Shard(number, read_by)
        _, expected = checkpoint(shard)
        content = part_files._copied(left)
        read_parts(content, parts_in(content, path), path, shard)
        content.pop("parts")
        found, wanted = dict(flat(content)), dict(flat(expected))
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            of_tensor = isinstance(value, torch.Tensor)
            assert torch.equal(found[name], value) if of_tensor else found[name] == value, name


def test_a_part_holds_no_more_than_its_rows(tmp_path):
    written(tmp_path, 3)
    sizes = [file.stat().st_size for file in tmp_path.glob("*-networks-*")]
    _, content = checkpoint(Shard(0, 1))
    tables = sum(x.nbytes for n, x in content["estimator"].items() if n.endswith("r.weight"))
    # the rest is what torch.save says of tensors
    assert sum(sizes) < 3 * (tables / 3 + 10_000)


def test_parts_of_other_epochs_go_and_other_files_stay(tmp_path):
    _, parts, path = written(tmp_path, 2, "4")
    written(tmp_path, 3, "3")
    others = ["debias_refit.3-networks-0of2.pt", "propensity.3-done-training-1of2.pt", "debias.pt"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    remove_others(parts, path)
    kinds = ("networks", "training")
    kept = {f"debias.4-{kind}-{k}of2.pt" for kind in kinds for k in range(2)}
    assert {file.name for file in tmp_path.iterdir()} == kept | set(others)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stamp": "../3"},
        {"of": 0},
        {"of": 10**6},
        {"pieces": True},
        {"tables": [[["estimator"], 4, 1]]},
        {"tables": [[["estimator", "x"], 1, 1]]},
        {"tables": [[["estimator", "x"], 2**50, 1]]},
        {"tables": 3},
    ],
    ids=str,
)
def test_what_cannot_be_said_of_parts_ends_in_a_sentence(tmp_path, wrong):
    said = {"stamp": "3", "of": 2, "pieces": 1, "tables": [[["estimator", "x"], 4, 1]]}
    assert parts_in({"parts": said}, tmp_path / "debias.pt") is not None
    with pytest.raises(InputError, match=r"debias\.pt is not a readable part"):
        parts_in({"parts": said | wrong}, tmp_path / "debias.pt")
