import pytest
import torch
from small_estimators import built, check_row, roughened

from upo.errors import InputError
from upo.learners.prediction import DoublyRobust
from upo.learners.targeting import CollaborativeImputation, Targeting
from upo.pairs import training_rows
from upo.runs.assembly import build_learner

# Lightning's own use of a torch name that a newer torch deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.mark.parametrize("name", ["tdr", "tdr_jl"])
def test_a_row_trains_and_its_stack_equals_its_parts(name):
    check_row(name)


@pytest.mark.parametrize("name", ["tdr", "tdr_jl"])
def test_without_fluctuation_it_is_the_parent(name):
    _, estimator, sampler = built(name)
    roughened(estimator)
    batch = sampler.chunk(0, 1)[0]
    before = DoublyRobust()(estimator, batch)
    twin = estimator.networks["imputation"]
    estimator.networks["imputation"] = estimator.networks["imputation_base"]
    plain = DoublyRobust()(estimator, sampler.chunk(0, 1)[0])
    assert torch.equal(before, plain)
    estimator.networks["imputation"] = twin
    twin.epsilon.fill_(0.3)
    assert not torch.equal(DoublyRobust()(estimator, sampler.chunk(0, 1)[0]), plain)


def test_an_epoch_starts_with_the_score_at_zero():
    _, estimator, sampler = built("tdr_jl")
    roughened(estimator, scale=0.5)
    learner = Targeting(estimator)
    learner.on_epoch_start(0, sampler)
    score = 0.0
    for rows in training_rows(estimator.space):
        assert rows.users.shape == (2, estimator.space.n_train)
        y = torch.sigmoid(estimator.logit("imputation", rows).double())
        score = score + ((1 / estimator.p_hat(rows) - 1) * (rows.labels - y)).mean(-1)
    # float32 logits, weights up to 19
    torch.testing.assert_close(score, torch.zeros(2).double(), rtol=0, atol=1e-5)
    assert learner.update(sampler.chunk(0, 1)[0])["epsilon"].shape == (2,)


def test_targeting_needs_a_targeted_network():
    _, estimator, _ = built("dr_jl")
    with pytest.raises(InputError, match="must be of the kind Targeted"):
        Targeting(estimator)


def test_on_the_error_scale_it_acts_through_the_imputation():
    config, estimator, sampler = built("dr_jl")
    roughened(estimator, scale=0.5)
    node = config.estimator.learners.imputation
    node._target_ = "upo.learners.targeting.CollaborativeImputation"
    learner = build_learner(node, estimator)
    assert isinstance(learner, CollaborativeImputation)
    learner.on_epoch_start(0, sampler)
    assert (learner.epsilon != 0).all()
    rows = sampler.chunk(0, 1)[0].rows
    e = estimator.errors(rows).detach()
    h = 1 / estimator.p_hat(rows) - 1
    torch.testing.assert_close(learner.target(e, rows), e - learner.epsilon * h)
    assert torch.isfinite(learner.update(sampler.chunk(0, 1)[0])["loss"]).all()
