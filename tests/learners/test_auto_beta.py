"""propensity=upo_auto: Theorem 2's estimate from a window of batches, for each replica."""

import pytest
import torch
from processes import found_by_ranks
from small_estimators import configure, shorten
from worlds import adam, make_estimator, make_space, parameters

from upo.core.layers import Sizes
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.functional.theory import beta_star
from upo.learners.auto_beta import AutoBetaLearner, AutoBetaPenalty
from upo.learners.propensity import AdversaryLearner
from upo.models.beta_window import BetaWindow
from upo.pairs import BatchSampler
from upo.runs.experiment import Experiment
from upo.training.checkpoint import load_checked, save_atomically

REPLICAS = 3


def window_of(size=50, replicas=REPLICAS, **settings):
    return BetaWindow(Sizes(4, 4, list(range(replicas))), window=size, **settings)


def start(*, beta=0.0, window=50, lr=1e-12, rule="equal_mass", num_bins=1, **log):
    """The learner on a small space; at the default rate the networks stay where they are."""
    space = make_space(**log)
    estimator = make_estimator(space, rule, num_bins=num_bins)
    estimator.networks["beta"] = window_of(window, space.replicas)
    estimator._steps["beta"] = 0
    learner = AutoBetaLearner(
        estimator,
        optimizer=adam(lr=lr, weight_decay=0.0),
        loss=cross_entropy,
        penalties={"upo": AutoBetaPenalty(beta=beta)},
    )
    learner.on_stage_start()
    return estimator, learner, BatchSampler(space, "game", 0, 100)


def play(learner, sampler, steps, first=0):
    return [learner.update(batch) for batch in sampler.chunk(first, steps)]


def constant(estimator, logits):
    """p_hat = sigmoid(logit) for every pair, and w = tanh(20) = 1 in float32."""
    network, adversary = estimator.networks["propensity"], estimator.networks["adversary"]
    with torch.no_grad():
        network.head.zero_()
        network.intercept.copy_(torch.tensor(logits).view(-1, 1))
        for p in adversary.layers[-1].parameters():
            p.zero_()
        next(p for p in adversary.layers[-1].parameters() if p.numel() == REPLICAS).fill_(20.0)
    for role in ("propensity", "adversary"):
        estimator.stepped(role)


@pytest.mark.parametrize(
    ("density", "logits", "beta"),
    # p_hat > mean o in each batch (four standard deviations): L_UPO = p_hat - mean o and
    # CE = -logit * mean o + a constant, so beta* = -logit; the third logit makes it negative
    [(0.05, [-1.5, -1.0, 1.0], [1.5, 1.0, 0.0]), (0.3, [-4.0, -3.5, -3.0], [0.0, 0.0, 0.0])],
    ids=["too high", "too low"],  # too low: L_UPO = mean o - p_hat, beta* = logit < 0
)
def test_beta_approaches_the_known_optimum_and_is_never_negative(density, logits, beta):
    estimator, learner, sampler = start(density=density, n_users=24)
    constant(estimator, logits)
    play(learner, sampler, 60)
    learner.on_epoch_start(1, sampler)
    sign = 1.0 if density < 0.1 else -1.0
    raw = estimator.networks["beta"].estimate()
    # exact but for float32 losses of 1e-7 beside differences of about 0.02
    torch.testing.assert_close(raw, -sign * torch.tensor(logits).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(
        estimator.networks["beta"].beta, torch.tensor(beta), atol=1e-3, rtol=0
    )
    (logs,) = play(learner, sampler, 1, first=60)
    assert torch.equal(logs["beta"], estimator.networks["beta"].beta)
    assert ((logs["upo"] > 0) == (torch.tensor(beta) > 0)).all()


@pytest.mark.parametrize("drift", [0.0, 0.2], ids=["steady", "falling"])
@pytest.mark.parametrize("rho", [-0.8, 0.5])
def test_the_estimate_survives_a_common_trend(rho, drift):
    """Both losses fall as training goes on, which the plain covariance takes for correlation."""
    g, size = torch.Generator().manual_seed(0), 2000
    x, z = torch.randn(2, size, REPLICAS, generator=g, dtype=torch.float64)
    y = 0.5 * (rho * x + (1 - rho**2) ** 0.5 * z)  # beta* = -rho / 0.5
    fall = -drift * torch.arange(size).unsqueeze(-1)
    window = window_of(size)
    for ce, upo in zip(x + fall, y + fall, strict=True):
        window.record(ce, upo)
    # standard error of the slope from differences: sqrt(3 (1 - rho^2) / (2 T)) / 0.5 <= 0.05
    torch.testing.assert_close(
        window.estimate(), torch.full((REPLICAS,), -2 * rho).double(), rtol=0, atol=0.25
    )
    window.refresh()
    assert ((window.beta > 0) == (rho < 0)).all()
    if drift:
        plain, _ = beta_star((x + fall).T, (y + fall).T)
        assert (plain < -0.9).all()  # -1: the trend alone


def test_the_window_keeps_the_last_batches_and_waits_for_ten():
    window = window_of(12)
    values = torch.randn(30, 2, REPLICAS, generator=torch.Generator().manual_seed(1)).double()
    for step, (ce, upo) in enumerate(values, start=1):
        window.record(ce, upo)
        held = values[max(0, step - 12) : step].permute(2, 0, 1)
        known = window.values[:, -len(held[0]) :]
        assert torch.equal(known, held)
        if step < 10:
            assert window.estimate().isnan().all()
        else:
            expected, _ = beta_star(held[..., 0].diff(), held[..., 1].diff())
            torch.testing.assert_close(window.estimate(), expected)
    window.refresh()
    assert (window.beta >= 0).all()


def test_the_given_beta_holds_until_the_first_estimate():
    given = [0.5, 1.0, 2.0]
    estimator, learner, sampler = start(beta=given)
    learner.on_epoch_start(0, sampler)
    logs = play(learner, sampler, 9)
    assert all(log["beta"].tolist() == given for log in logs)
    learner.on_epoch_start(1, sampler)
    assert estimator.networks["beta"].beta.tolist() == given
    play(learner, sampler, 1, first=9)
    learner.on_epoch_start(2, sampler)
    assert estimator.networks["beta"].beta.tolist() != given


def test_beta_is_capped_and_a_loss_that_does_not_vary_gives_none():
    window = window_of(10, maximum=3.0)
    for t in range(10):
        noise = float((-1) ** t)
        window.record(torch.full((3,), noise), torch.tensor([-0.01 * noise, -0.5 * noise, 1.0]))
    window.refresh()
    assert window.beta.tolist() == [3.0, 2.0, 0.0]


def test_a_replica_estimates_what_its_seed_alone_does():
    def betas(seeds):
        estimator, learner, sampler = start(seeds=seeds, lr=0.02, num_bins=4)
        adversary = AdversaryLearner(estimator, optimizer=adam(lr=0.02))
        for epoch in range(3):
            learner.on_epoch_start(epoch, sampler)
            for batch in sampler.chunk(20 * epoch, 20):
                adversary.update(batch)
                learner.update(batch)
        return estimator.networks["beta"].values, estimator.networks["beta"].estimate()

    values, stack = betas([4, 0, 9])
    for r, seed in enumerate([4, 0, 9]):
        alone, estimate = betas([seed])
        # 60 float32 steps, sums in another order; differences of the losses are about 1e-2
        torch.testing.assert_close(values[r], alone[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(stack[r], estimate[0], rtol=1e-2, atol=1e-2)


def _played(*_):
    estimator, learner, sampler = start(lr=0.02, num_bins=4)
    for epoch in range(2):
        learner.on_epoch_start(epoch, sampler)
        play(learner, sampler, 15, first=15 * epoch)
    learner.on_epoch_start(2, sampler)
    return {"beta": estimator.networks["beta"].beta, "values": estimator.networks["beta"].values}


def test_processes_agree_with_one(tmp_path):
    first, second = found_by_ranks(_played, [2], tmp_path)[2]
    alone = _played()
    assert torch.equal(first["beta"], second["beta"])
    known = ~alone["values"].isnan()
    # float32 sums in another order over 30 steps
    torch.testing.assert_close(first["values"][known], alone["values"][known], rtol=0, atol=1e-5)
    torch.testing.assert_close(first["beta"], alone["beta"], rtol=1e-2, atol=1e-3)


GAME = ["propensity=upo_auto", "estimator.networks.beta.window=12", "seeds=[3,8]"]


def run(folder, epochs, *overrides):
    config = configure("upo_dr", *GAME, *overrides)
    shorten(config)
    config.estimator.stages.game.epochs = epochs
    return Experiment(config, folder, progress=False).run()


def test_a_run_trains_and_a_resumed_one_equals_it(tmp_path):
    whole = run(tmp_path / "whole", 6)
    game = next(stage for stage in whole.stages if stage.name == "game")
    betas = torch.stack(game.history.logs["game/train/game_beta"])
    assert betas.shape == (6, 2)
    assert (betas[:2] == 0).all()  # five steps an epoch: ten batches after two
    assert (betas[2:] > 0).any()
    assert torch.isfinite(whole.metrics["auc"]).all()

    folder = tmp_path / "killed"
    run(folder, 3)
    path = folder / "checkpoints" / "game.pt"
    save_atomically(load_checked(path) | {"done": False}, path)  # killed after its third epoch
    (folder / "checkpoints" / "debias.pt").unlink()
    resumed = run(folder, 6, f"resume={folder}")
    expected = parameters(whole.estimator.networks)
    for name, p in parameters(resumed.estimator.networks).items():
        assert torch.equal(p, expected[name]), name
    ours, theirs = (run.estimator.networks["beta"] for run in (resumed, whole))
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(ours.beta, theirs.beta)


def test_batches_that_hold_all_pairs_are_refused():
    _, learner, _ = start()
    space = learner.estimator.space
    with pytest.raises(InputError, match="pair_batch"):
        learner.on_epoch_start(0, BatchSampler(space, "game", 0, space.n_pairs))


@pytest.mark.parametrize("wrong", [{"size": 9}, {"maximum": -1.0}, {"maximum": float("nan")}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(InputError, match=r"estimator\.networks\.beta\.(window|maximum)"):
        window_of(**wrong)


def test_the_learner_needs_its_window():
    estimator = make_estimator(make_space())
    with pytest.raises(InputError, match="upo_auto"):
        AutoBetaLearner(estimator, optimizer=adam(), loss=cross_entropy)
