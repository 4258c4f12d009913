"""Semi-synthetic studies of any dataset: cells, wrong arguments, and the genuine base."""

import pytest
import torch
from small_semisynthetic import QUICK

from upo.data.interactions import Interactions
from upo.data.movielens import MovieLensDataModule
from upo.data.semisynthetic import SemiSyntheticDataModule, log_rows
from upo.data.semisynthetic_completion import Completion
from upo.data.semisynthetic_world import CODES
from upo.data.synthetic import SyntheticDataModule
from upo.errors import InputError
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import ece
from upo.pairs import BatchSampler, PairSpace


def small_study(tmp_path, **arguments):
    base = SyntheticDataModule(60, 40, density=0.3, test_per_user=2)
    given = {"completion": QUICK, "cache_dir": str(tmp_path), **arguments}
    return SemiSyntheticDataModule(base, **given)


def test_any_dataset_may_be_the_base(tmp_path):
    study = small_study(tmp_path)
    base = study.base.data.train
    assert (study.data.train.n_users, study.data.train.n_items) == (60, 40)
    assert torch.equal(study.data.train.user_features, base.user_features)
    assert small_study(tmp_path, features=False).data.train.user_features is None
    order = log_rows(study.base)
    keys = order.users * 40 + order.items
    assert not torch.equal(keys, base.keys)  # the last tenth is not the last users
    assert torch.equal(keys.sort().values, base.keys)
    lookup = torch.searchsorted(base.keys, keys)
    assert torch.equal(order.ratings, base.ratings[lookup])


def test_batches_of_d_leave_the_held_out_cells_out(tmp_path):
    study = small_study(tmp_path)
    space = PairSpace.of(study.data, [0, 1], 0.1)
    cells = study.data.cells
    assert space.n_pairs == len(cells)
    assert space.density == len(study.data.train) / len(cells)
    sampler = BatchSampler(space, "stage", 0, space.n_pairs // 4)
    drawn = torch.cat([b.pairs.users * 40 + b.pairs.items for b in sampler.chunk(0, 4)], dim=1)
    for r in range(2):  # an epoch visits every train cell once, and no other
        assert torch.equal(drawn[r].sort().values, cells(torch.arange(len(cells))).sort().values)
    assert space.truth is study.data.truth


def test_held_out_cells_may_count_as_unobserved(tmp_path):
    corrected, study = small_study(tmp_path), small_study(tmp_path, all_cells=True)
    space = PairSpace.of(study.data, [0], 0.0)
    assert space.n_pairs == 60 * 40
    assert torch.equal(study.data.train.keys, corrected.data.train.keys)  # the log is the same
    assert torch.equal(study.data.test.keys, corrected.data.test.keys)
    assert not torch.isin(study.data.test.keys, study.data.train.keys).any()
    drawn = BatchSampler(space, "stage", 0, 60 * 40).chunk(0, 1)[0].pairs
    held_out = ~corrected.data.cells.contain(drawn.users * 40 + drawn.items)
    assert int(held_out.sum()) == 60 * 40 - len(corrected.data.cells)
    assert not drawn.o[held_out].any()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"p": 0.0}, r"dataset.p must lie in \(0, 1\), got 0.0"),
        ({"p": 1.0}, r"dataset.p must lie in \(0, 1\), got 1.0"),
        ({"protocol": "paper"}, "must be one of corrected, as_published, got 'paper'"),
        ({"train_share": 1.0}, "train_share must lie in"),
        ({"test_share": 0.0}, "test_share in"),
        ({"k": 0}, "dataset.k must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        _ = small_study(tmp_path, **arguments).data


def test_the_base_keeps_the_order_of_its_file(tmp_path):
    text = "2\t3\t4\t88\n1\t1\t1\t87\n2\t1\t5\t87\n"
    (tmp_path / "u.data").write_text(text)
    base = MovieLensDataModule(str(tmp_path))
    order = log_rows(base)
    assert order.users.tolist() == [1, 0, 1]
    assert order.items.tolist() == [2, 0, 0]
    assert order.ratings.tolist() == [4, 1, 5]
    assert isinstance(base.data.train, Interactions)
    assert base.data.test is None


@pytest.mark.parametrize(
    ("p", "protocol", "rate", "score"),
    [
        (0.4, "corrected", 0.0503, 0.2137),
        (0.5, "corrected", 0.0956, 0.1684),
        (0.6, "corrected", 0.1696, 0.0944),
        (0.4, "as_published", 0.0479, 0.2141),
        (0.5, "as_published", 0.0856, 0.1764),
        (0.6, "as_published", 0.1672, 0.0948),
    ],
)
def test_the_genuine_base(real_data, tmp_path_factory, p, protocol, rate, score):
    """Rates and scores follow from shares and codes, so a short completion serves."""
    cache = tmp_path_factory.getbasetemp() / "completed"
    study = SemiSyntheticDataModule(
        MovieLensDataModule(str(real_data("ml-100k", "u.data"))),
        p=p,
        protocol=protocol,
        completion=Completion(dim=4, max_epochs=2),
        cache_dir=str(cache),
    )
    data = study.data
    assert len(data.test) == 63_445
    assert len(data.cells) == 754 * 1682
    # deviations of one draw: .0003 for the rate over 1.27 million cells, .0018 for mean labels
    assert len(data.train) / len(data.cells) == pytest.approx(rate, abs=0.001)
    p_true = data.truth.propensity(data.test.users, data.test.items)
    index = bins_from_edges(p_true, equal_mass_edges(p_true, 10))
    against_labels = ece(p_true, data.test.ratings, index, 10)
    assert float(against_labels) == pytest.approx(score, abs=0.006)
    assert set(data.truth.preference(data.test.users, data.test.items).tolist()) == set(CODES)
