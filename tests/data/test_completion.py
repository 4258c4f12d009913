"""The completion against the protocol in plain code, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from small_semisynthetic import QUICK, rows

from upo.data.semisynthetic_completion import Completion
from upo.data.semisynthetic_world import SemiSyntheticWorld
from upo.errors import InputError


def plain_fit(completion, log, n_users, n_items):
    """The protocol, transcribed: everything in the loss, Adam as textbooks have it."""
    g = torch.Generator().manual_seed(completion.seed)
    shapes = ((n_users, completion.dim), (n_items, completion.dim), (n_users,), (n_items,), (1,))
    weights = [torch.randn(shape, generator=g).double().requires_grad_() for shape in shapes]
    u, i, a, b, c = weights
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    predict = lambda x, y: (u[x] * i[y]).sum(-1) + a[x] + b[y] + c  # noqa: E731
    n, step = int(completion.train_share * len(log.users)), 0
    history = []
    while len(history) < completion.max_epochs:
        for lo in range(0, n, completion.batch):
            part = slice(lo, min(lo + completion.batch, n))
            loss = (predict(log.users[part], log.items[part]) - log.ratings[part]).square().mean()
            loss = loss + completion.decay * sum(w.square().sum() for w in weights)
            step += 1
            for w, m, v, grad in zip(
                weights, first, second, torch.autograd.grad(loss, weights), strict=True
            ):
                m.mul_(0.9).add_(0.1 * grad)
                v.mul_(0.999).add_(0.001 * grad**2)
                w.data -= (
                    completion.lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
                )
        error = predict(log.users[n:], log.items[n:]) - log.ratings[n:]
        history.append(float(error.detach().square().mean()))
        since_best = len(history) - 1 - history.index(min(history))
        if since_best == completion.patience:
            break
    return (u @ i.T + a[:, None] + b + c).detach(), history


def test_completion_follows_the_protocol():
    completion = Completion(dim=3, lr=0.05, decay=0.01, batch=50, patience=2, max_epochs=60)
    log = rows()
    result = completion(log, 12, 9)
    matrix, history = plain_fit(completion, log, 12, 9)
    assert result.epochs == len(history) < 60  # it stopped of itself
    # float32 against float64 over a hundred steps
    torch.testing.assert_close(result.matrix.double(), matrix, rtol=1e-3, atol=1e-3)
    assert result.valid_mse == pytest.approx(history[-1], rel=1e-3)
    assert result.valid_mse > min(history) * (1 + 1e-4)  # the last weights, not the best


def test_completion_is_the_same_each_time_on_any_number_of_threads():
    log, threads = rows(), torch.get_num_threads()
    once = QUICK(log, 12, 9)
    torch.set_num_threads(2)
    try:
        again = QUICK(log, 12, 9)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(once.matrix, again.matrix)
    other = replace(QUICK, seed=1)(log, 12, 9)
    assert not torch.equal(once.matrix, other.matrix)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"dim": 0}, "completion.dim must be at least 1"),
        ({"patience": 0}, "completion.patience must be at least 1"),
        ({"train_share": 1.0}, r"completion.train_share must lie in \(0, 1\)"),
        ({"lr": 0.0}, "needs lr > 0"),
    ],
)
def test_wrong_completions_are_named(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Completion(**arguments)


def test_bases_that_cannot_be_completed_are_named():
    with pytest.raises(InputError, match="has 5 ratings, too few"):
        QUICK(rows(5), 12, 9)
    with pytest.raises(InputError, match="is not completed: give a part"):
        QUICK(rows(), 10**5, 10**4)
    with pytest.raises(InputError, match=r"diverged .* lower dataset.completion.lr"):
        replace(QUICK, lr=1e30)(rows(), 12, 9)
    with pytest.raises(InputError, match="at least 2 users and 2 items"):
        SemiSyntheticWorld(torch.zeros(3, dtype=torch.int8), 1, 3, p=0.5)
