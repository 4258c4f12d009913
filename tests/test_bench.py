"""The benchmark of a step runs, and its two loops compute the same."""

from dataclasses import replace

import pytest
import torch
from benchmarks.step import PLAYERS, SETTINGS, BareLoop, generated_log, main, make_module


def test_the_quick_benchmark_prints_its_table(capsys):
    main(["--quick"])
    command, *table = capsys.readouterr().out.splitlines()
    assert "step.py --quick (threads: " in command
    rows = [line.split()[:3] for line in table[2:]]
    assert rows == [[s.name, loop, "1"] for s in SETTINGS for loop in ("bare", "upo")]


@pytest.mark.parametrize("s", SETTINGS, ids=lambda s: s.name)
def test_the_bare_loop_is_the_same_mathematics(s):
    """From the same start on the same batches, both reach the same networks."""
    s = replace(s, n_users=40, n_items=30, n_observed=300, batch=32)
    log = generated_log(s)
    module, bare = make_module(s, *log, 1), BareLoop(s, *log)
    networks = module.estimator.networks
    with torch.no_grad():
        for player in PLAYERS:
            # linear layers of the bare loop are stored transposed, every other shape is the same
            theirs = dict(bare.nets[player].named_parameters())
            for p, q in zip(in_order(networks[player]), theirs.values(), strict=True):
                q.copy_(p.reshape(q.shape[::-1]).T if p.dim() == 3 else p.reshape(q.shape))
    for batch in module.sampler.chunk(0, 20):
        o, d = batch.o, batch.d
        bare.step(*(x[0] for x in (o.users, o.items, o.labels, d.users, d.items)))
        for learner in module.learners.values():
            learner.update(batch)
    for player in PLAYERS:
        for p, q in zip(in_order(networks[player]), bare.nets[player].parameters(), strict=True):
            # float32: other kernels sum in another order, and Adam divides by small moments
            found = p[0].T if p.dim() == 3 else p
            torch.testing.assert_close(found.reshape(q.shape), q, rtol=0, atol=1e-4)


def in_order(network):
    """Parameters in the order of the bare loop's: tables, then weights, each before its bias."""
    named = dict(network.named_parameters())
    tables = [p for name, p in named.items() if name in ("user.weight", "item.weight")]
    return tables + [p for name, p in named.items() if name not in ("user.weight", "item.weight")]
