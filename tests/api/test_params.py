"""``get_params`` and the errors of what was not fitted, as in scikit-learn."""

import numpy as np
import pytest
from api_world import TEST, short

import upo
from upo.fitted import Fitted, NotFittedError


def test_params_fit_the_same_model_again(tmp_path):
    settings = {
        "estimator": "ips",
        "seeds": 2,
        "label_threshold": 4,
        "protocol": "holdout",
        "overrides": {
            "estimator.weighting.p_min": np.float64(0.2),
            "estimator.stages.debias.epochs": 2,
            "estimator.fit.epochs": 1,
            "trainer.accelerator": "cpu",
        },
    }
    model = short(**settings)
    params = model.get_params()
    assert params["seeds"] == [0, 1]
    assert {"estimator", "user", "item", "rating", "label_threshold", "overrides"} <= set(params)
    again = short(**params)
    assert again.predict(TEST).equals(model.predict(TEST))
    assert again.get_params() == params
    model.save(tmp_path)
    assert upo.load(tmp_path).get_params() == params
    params["overrides"].clear()
    assert model.get_params()["overrides"]  # a copy was given


def test_what_was_not_fitted_is_a_not_fitted_error(tmp_path):
    naive = short(estimator="naive", overrides={"estimator.stages.debias.epochs": 1})
    for kind in (NotFittedError, upo.InputError, ValueError, AttributeError):
        with pytest.raises(kind, match="learns no propensity"):
            naive.propensity(TEST)
    assert not naive.has_propensity
    unknown = Fitted(
        naive.estimator,
        naive.config,
        metrics=naive.metrics,
        columns=("user", "item"),
        user_ids=naive.user_ids,
        item_ids=naive.item_ids,
    )
    with pytest.raises(NotFittedError, match=r"\.hydra/config\.yaml"):
        unknown.get_params()
    unknown.save(tmp_path)  # as unknown as before
    with pytest.raises(NotFittedError):
        upo.load(tmp_path).get_params()
