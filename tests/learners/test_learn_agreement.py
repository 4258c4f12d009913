import pytest
import torch
from small_estimators import built, check_row, roughened

from upo.core.optim import ReplicaAdam
from upo.errors import InputError
from upo.functional.pointwise import cross_entropy
from upo.learners.agreement import AgreementLearner, agreement_loss
from upo.runs.assembly import build_learner
from upo.runs.config import scheduled

# Lightning's own use of a torch name that a newer torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


def test_the_row_trains_and_its_stack_equals_its_parts():
    check_row("asips")


def learner(tau, seed=0):
    config, estimator, sampler = built("asips", f"estimator.learners.agreement.tau={tau}")
    roughened(estimator, seed, scale=0.5)
    return build_learner(config.estimator.learners.agreement, estimator), sampler


def parameters(estimator, role="prediction"):
    return [p.clone() for p in estimator.networks[role].parameters()]


def test_at_threshold_0_nothing_moves():
    player, sampler = learner(0)
    before = parameters(player.estimator)
    for batch in sampler.chunk(0, 3):
        logs = player.update(batch)
    assert torch.equal(logs["agreeing"], torch.zeros(2))
    assert torch.equal(logs["loss"], torch.zeros(2))
    for old, new in zip(before, parameters(player.estimator), strict=True):
        assert torch.equal(old, new)


def test_a_replica_without_agreement_stands_still_while_another_learns():
    player, sampler = learner("[0.0,0.5]")
    before = parameters(player.estimator)
    player.update(sampler.chunk(0, 1)[0])
    for old, new in zip(before, parameters(player.estimator), strict=True):
        half = len(old) // 2
        assert torch.equal(old[:half], new[:half])
        assert not torch.equal(old[half:], new[half:])


def test_at_threshold_1_the_first_predictor_is_distilled_on_all_pairs():
    player, sampler = learner(1)
    batch, estimator = sampler.chunk(0, 1)[0], player.estimator
    teacher = torch.sigmoid(estimator.logit("first", batch.pairs))
    expected = cross_entropy(estimator.logit("prediction", batch.pairs), teacher).mean(-1)
    teachers = [parameters(estimator, role) for role in ("first", "second")]
    logs = player.update(batch)
    torch.testing.assert_close(logs["loss"], expected.detach())
    for role, before in zip(("first", "second"), teachers, strict=True):
        assert all(map(torch.equal, before, parameters(estimator, role)))


def test_agreement_is_in_absolute_value():
    logit = torch.zeros(1, 2)
    low, high = torch.full((1, 2), -3.0), torch.full((1, 2), 3.0)
    for first, second in ((low, high), (high, low)):
        loss, count = agreement_loss(logit, first, second, 0.5)
        assert count.item() == 0
        assert loss.item() == 0


def test_gradients_agree_with_finite_differences():
    g = torch.Generator().manual_seed(0)
    logit, first, second = torch.randn(3, 2, 6, generator=g, dtype=torch.float64)
    logit.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: agreement_loss(x, first, second, 0.4)[0], logit)


def test_the_two_predictors_start_and_draw_apart():
    _, estimator, _ = built("asips")
    first, second = (estimator.networks[role].user.weight for role in ("first", "second"))
    assert not torch.equal(first, second)
    config, _, _ = built("asips")
    stages = scheduled(config.estimator)
    assert stages.index("first") < stages.index("second") < stages.index("debias")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"tau": 1.5}, "tau must lie in"),
        ({"teachers": ["first", "first"]}, "teachers must be two"),
        ({"teachers": ["first", "nobody"]}, "teachers must be two"),
    ],
)
def test_wrong_settings_say_so(bad, message):
    _, estimator, _ = built("asips")
    fine = {"optimizer": ReplicaAdam, "teachers": ["first", "second"]}
    with pytest.raises(InputError, match=message):
        AgreementLearner(estimator, **{**fine, **bad})
