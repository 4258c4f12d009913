"""What predictions are of: labels, outputs and predictions of positive ratings and of ratings."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from upo.data.interactions import LabelRule
from upo.errors import InputError
from upo.pairs.target import Positive, Rating

HALVES = torch.tensor([0.5, 3.0, 3.5, 4.0, 4.0, 5.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "target", [Positive(LabelRule(4.0)), Rating.of(HALVES)], ids=lambda t: t.name
)
def test_labels_decode_to_what_predictions_should_be(target):
    decoded = target.decoded(target.labels(HALVES))
    torch.testing.assert_close(
        decoded.double(), target.truth(HALVES).double(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "target", [Positive(LabelRule(4.0)), Rating.of(HALVES)], ids=lambda t: t.name
)
def test_the_output_of_the_mean_label_predicts_the_mean_and_has_the_least_loss(target):
    labels = target.labels(HALVES).double()
    best = target.output(labels.mean())
    torch.testing.assert_close(
        target.prediction(best), target.truth(HALVES).double().mean(), rtol=1e-6, atol=1e-6
    )
    losses = [target.loss(best + gap, labels).mean() for gap in (-0.01, 0.0, 0.01)]
    assert losses[1] < min(losses[0], losses[2])


def test_labels_of_ratings_are_standardised_whatever_their_scale():
    small, large = Rating.of(HALVES), Rating.of(20 * HALVES + 7)
    torch.testing.assert_close(small.labels(HALVES), large.labels(20 * HALVES + 7))
    labels = small.labels(HALVES).double()
    assert float(labels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(labels.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert large.unit == pytest.approx(20 * small.unit)


@given(st.floats(-50, 50))
def test_ratings_are_clipped_to_the_scale_and_scores_are_not(output):
    target = Rating.of(HALVES)
    z = torch.tensor(output, dtype=torch.float64)
    assert 0.5 <= float(target.prediction(z)) <= 5.0
    assert 0.0 <= float(target.share(z)) <= 1.0
    assert float(target.score(z)) == pytest.approx(target.centre + target.spread * output)


def test_a_log_of_one_rating_has_no_scale():
    with pytest.raises(InputError, match=r"Every rating of the log is 0\.1"):
        Rating.of(torch.full((9,), 0.1, dtype=torch.float64))
