"""The benchmark of a step runs, and its two loops compute the same."""

from dataclasses import replace

import pytest
import torch
from benchmarks import bench, defaults, processes, rows
from benchmarks.bare import BareLoop
from benchmarks.bare_defaults import DefaultLoop, Size
from benchmarks.settings import PLAYERS, SETTINGS, generated_log, make_module
from benchmarks.step import main


def test_the_quick_benchmark_prints_its_table(capsys):
    main(["--quick"])
    command, *table = capsys.readouterr().out.splitlines()
    assert "step.py --quick (threads: " in command
    rows = [line.split()[:3] for line in table[2:]]
    loops = ("bare", "fused", "step", "replay")
    assert rows == [[s.name, loop, "1"] for s in SETTINGS for loop in loops]


def test_steps_on_rows_are_timed(capsys):
    rows.main(["--quick"])
    command, *lines = capsys.readouterr().out.splitlines()
    assert "rows.py --quick (threads: " in command
    assert lines[-2].startswith("step     ratio  wall")
    assert lines[-1].startswith("coat   R =  2  step")


@pytest.mark.slow
def test_several_processes_are_timed(capsys):
    processes.main(["--only", "coat", "--replicas", "2", "--turns", "1"])
    one, two = capsys.readouterr().out.splitlines()
    assert "1 processes" in one
    assert "2 processes" in two


def paired(module, bare):
    """Parameters of both loops, ours in the shape of the bare loop's."""
    tables = ("user.weight", "item.weight")
    for player in PLAYERS:
        named = dict(module.estimator.networks[player].named_parameters())
        named = {name: named[name] for name in sorted(named, key=lambda name: name not in tables)}
        for p, q in zip(named.values(), bare.nets[player].parameters(), strict=True):
            yield (p[0].T if p.dim() == 3 else p).reshape(q.shape), q


@pytest.mark.parametrize("s", SETTINGS, ids=lambda s: s.name)
def test_the_bare_loop_is_the_same_mathematics(s):
    """From the same start on the same batches, both reach the same networks."""
    s = replace(s, n_users=40, n_items=30, n_observed=300, batch=32)
    log = generated_log(s)
    module, bare = make_module(s, *log, 1), BareLoop(s, *log)
    with torch.no_grad():
        for p, q in paired(module, bare):
            q.copy_(p)
    start = [q.detach().clone() for _, q in paired(module, bare)]
    for batch in module.sampler.chunk(0, 20):
        o, d = batch.rows, batch.pairs
        bare.step(*(x[0] for x in (o.users, o.items, o.labels, d.users, d.items)))
        for learner in module.learners.values():
            learner.update(batch)
    for (p, q), first in zip(paired(module, bare), start, strict=True):
        # float32: other kernels sum in another order, and Adam divides by small moments, which
        # moved single elements by up to 2e-4 while the networks move by 0.1
        torch.testing.assert_close(p, q, rtol=0, atol=5e-4)
        assert (q - first).abs().max() > 1e-3


OURS = {  # of what the bare loop calls otherwise
    "user_term.weight": "terms.user.weight",
    "item_term.weight": "terms.item.weight",
    "user_bias.weight": "bias.user.weight",
    "item_bias.weight": "bias.item.weight",
    "globe": "bias.globe",
    "head.weight": "head",
    "head.bias": "intercept",
} | {f"{2 * n}.{what}": f"layers.{n}.{what}" for n in (0, 1) for what in ("weight", "bias")}


def test_the_bare_loop_of_the_defaults_is_the_same_mathematics():
    """From the same start on the same batches, both reach the same networks, by dense steps."""
    s = Size("small", 40, 30, 300, 32, dim=8)
    log = defaults.generated_log(s)
    s = replace(s, n_observed=len(log[0]))
    module, bare = defaults.make_module(s, *log, 1, "step", dense=True), DefaultLoop(s, *log)
    bare.edges = module.estimator.bins.edges[0]
    pairs = [
        (dict(module.estimator.networks[player].named_parameters())[OURS.get(name, name)], q)
        for player, net in bare.nets.items()
        for name, q in net.named_parameters()
    ]
    shaped = [(p[0].T if p.dim() == 3 else p, q) for p, q in pairs]
    with torch.no_grad():
        for p, q in shaped:
            q.copy_(p.reshape(q.shape))
    start = [q.detach().clone() for _, q in shaped]
    for batch in module.sampler.chunk(0, 20):
        o, d = batch.rows, batch.pairs
        bare.step(*(x[0] for x in (o.users, o.items, o.labels, d.users, d.items)))
        for learner in module.learners.values():
            learner.update(batch)
    for (p, q), first in zip(shaped, start, strict=True):
        torch.testing.assert_close(p.reshape(q.shape), q, rtol=0, atol=5e-4)  # as above
        assert q.dim() < 2 or (q - first).abs().max() > 1e-3  # an intercept may stay near its start


def test_steps_of_the_default_settings_are_timed(capsys):
    defaults.main(["--quick"])
    command, _, *lines = capsys.readouterr().out.splitlines()
    assert "defaults.py --quick (threads: " in command
    assert [line.split()[:3] for line in lines[:2]] == [
        ["coat", "bare", "1"],
        ["coat", "step", "1"],
    ]


@pytest.mark.slow
def test_the_whole_benchmark_runs(capfd):
    bench.main(["--quick"])
    printed = capfd.readouterr().out
    assert "seeds =  1:" in printed
    assert "seeds = 10:" in printed
