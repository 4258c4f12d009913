import inspect
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate

import upo.config  # noqa: F401 - registers the schema
from upo.data.interactions import Interactions
from upo.data.movielens import MovieLensDataModule
from upo.data.rating_data import report
from upo.data.semisynthetic import SemiSyntheticDataModule, log_rows, make_semisynthetic
from upo.data.semisynthetic_cache import completed, fingerprint
from upo.data.semisynthetic_completion import Completion, LogRows
from upo.data.semisynthetic_world import (
    CODES,
    CUTS_AS_PUBLISHED,
    SemiSyntheticWorld,
    class_propensities,
    classes_by_share,
)
from upo.data.synthetic import SyntheticDataModule
from upo.errors import InputError
from upo.functional.binning import bins_from_edges, equal_mass_edges
from upo.functional.diagnostics import ece
from upo.pairs import BatchSampler

CONF = Path(__file__).parents[2] / "conf"
N_USERS, N_ITEMS = 90, 70
QUICK = Completion(dim=3, lr=0.02, batch=64, max_epochs=4)


def rows(n=200, n_users=12, n_items=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    users = torch.randint(n_users, (n,), generator=g)
    items = torch.randint(n_items, (n,), generator=g)
    return LogRows(users, items, torch.randint(1, 6, (n,), generator=g).double())


def make_world(p=0.5, **arguments):
    g = torch.Generator().manual_seed(1)
    classes = classes_by_share(torch.randn(N_USERS, N_ITEMS, generator=g))
    return SemiSyntheticWorld(classes, N_USERS, N_ITEMS, p=p, **arguments)


def every_pair(world):
    keys = torch.arange(world.n_users * world.n_items)
    return keys // world.n_items, keys % world.n_items


def keys_of(part):
    return part[0] * N_ITEMS + part[1]


# -- completion --------------------------------------------------------------------------------


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


# -- world -------------------------------------------------------------------------------------


def test_classes_have_the_shares_and_the_order_of_the_ratings():
    matrix = torch.randn(40, 25, generator=torch.Generator().manual_seed(0))
    classes = classes_by_share(matrix).long()
    assert torch.bincount(classes).tolist() == [530, 240, 140, 60, 30]
    published = classes_by_share(matrix, CUTS_AS_PUBLISHED).long()
    assert torch.bincount(published).tolist() == [530, 240, 140, 70, 20]
    assert (classes[matrix.flatten().argsort()].diff() >= 0).all()


@pytest.mark.parametrize("p", [0.4, 0.5, 0.6])
def test_propensities_are_powers_of_p(p):
    assert class_propensities(p) == (p**4, p**4, p**3, p**2, p)
    published = class_propensities(p, as_published=True)
    # only at 0.5 is the propensity of the highest class a code that is replaced again
    assert published == (p**4, p**4, p**3, p**2, p**3 if p == 0.5 else p)


def test_log_and_test_lie_where_they_should():
    world = make_world()
    log, test = keys_of(world.log()), keys_of(world.uniform_sample())
    cells = world.cells(torch.arange(len(world.cells)))
    assert len(world.cells) % N_ITEMS == 0
    assert len(world.cells) == pytest.approx(0.8 * N_USERS * N_ITEMS, abs=N_ITEMS / 2)
    assert len(torch.unique(cells)) == len(cells)
    assert torch.isin(log, cells).all()
    assert not torch.isin(test, cells).any()
    assert len(torch.unique(test)) == len(test) == round(0.2 * 0.2 * N_USERS * N_ITEMS)
    everything = torch.arange(N_USERS * N_ITEMS)
    assert torch.equal(world.cells.contain(everything), torch.isin(everything, cells))


def test_truth_is_a_function_of_seed_user_and_item():
    world, again, other = make_world(), make_world(), make_world(seed=1)
    users, items = every_pair(world)
    some = torch.tensor([5, 4000, 77])
    for what in ("propensity", "preference", "label", "observed"):
        all_at_once = getattr(world, what)(users, items)
        assert torch.equal(all_at_once, getattr(again, what)(users, items))
        assert torch.equal(all_at_once[some], getattr(world, what)(users[some], items[some]))
        if what in ("label", "observed"):
            assert not torch.equal(all_at_once, getattr(other, what)(users, items))


def test_a_larger_p_shows_more_and_changes_no_label():
    small, large = make_world(0.4), make_world(0.6)
    users, items = every_pair(small)
    assert torch.equal(small.label(users, items), large.label(users, items))
    seen_small, seen_large = small.observed(users, items), large.observed(users, items)
    assert (seen_large | ~seen_small).all()  # the draws are the same
    assert seen_large.sum() > seen_small.sum()


def test_draws_have_the_true_probabilities():
    world = make_world(0.6)
    users, items = every_pair(world)
    for draws, p in (
        (world.observed(users, items), world.propensity(users, items)),
        (world.label(users, items), world.preference(users, items)),
    ):
        for value in p.unique():
            of_class = draws[p == value].double()
            sd = float((value * (1 - value) / len(of_class)).sqrt())
            # one fixed draw per class; 4 deviations would fail once in 16,000 seeds
            assert of_class.mean() == pytest.approx(float(value), abs=4 * sd)


def test_missing_is_not_at_random():
    data = make_semisynthetic(make_world(), "world")
    assert data.train.ratings.mean() > data.test.ratings.mean() + 0.1
    share = len(data.train) / len(data.cells)
    assert f"cells to train on: 5,040 (80.0%), {share:.2%} observed" in report(data)


# -- cache -------------------------------------------------------------------------------------


class Unexpected(Completion):
    def __call__(self, rows, n_users, n_items):
        raise AssertionError("completed again")


def cached(folder, log=None, completion=QUICK):
    return completed(log or rows(), 12, 9, completion, folder, "base")


def test_a_matrix_is_completed_once(tmp_path):
    first = cached(tmp_path / "new")
    again = cached(tmp_path / "new", completion=Unexpected(**vars(QUICK)))
    assert torch.equal(first.matrix, again.matrix)
    assert (first.epochs, first.valid_mse) == (again.epochs, again.valid_mse)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_other_rows_and_settings_have_other_files():
    log = rows()
    turned = LogRows(*(column.flip(0) for column in log))
    given = [(log, QUICK), (turned, QUICK), (log, replace(QUICK, decay=0.1))]
    keys = {fingerprint(lines, 12, 9, settings) for lines, settings in given}
    keys |= {fingerprint(log, 12, 10, QUICK)}
    assert len(keys) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "swap", "empty"])
def test_a_damaged_file_is_replaced(tmp_path, capsys, damage):
    first = cached(tmp_path)
    (path,) = tmp_path.iterdir()
    content = torch.load(path, weights_only=True)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        if damage == "flip":
            content["matrix"][3, 4] += 1e-3
        else:
            content["key"] = "0" * 64
        torch.save(content, path)
    assert capsys.readouterr().err == ""
    again = cached(tmp_path)
    assert torch.equal(first.matrix, again.matrix)
    assert f"{path} is damaged or not what its name says" in capsys.readouterr().err
    assert torch.equal(cached(tmp_path).matrix, first.matrix)
    assert capsys.readouterr().err == ""


def test_without_a_place_for_the_cache_a_run_goes_on(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert cached(tmp_path / "file").matrix.shape == (12, 9)
    assert "set dataset.cache_dir to a folder" in capsys.readouterr().err


# -- datamodule --------------------------------------------------------------------------------


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
    space = study.pair_space([0, 1], 0.1)
    cells = study.data.cells
    assert space.n_pairs == len(cells)
    assert space.density == len(study.data.train) / len(cells)
    sampler = BatchSampler(space, "stage", 0, space.n_pairs // 4)
    drawn = torch.cat([b.d.users * 40 + b.d.items for b in sampler.chunk(0, 4)], dim=1)
    for r in range(2):  # an epoch visits every train cell once, and no other
        assert torch.equal(drawn[r].sort().values, cells(torch.arange(len(cells))).sort().values)
    assert space.truth is study.data.truth


def test_held_out_cells_may_count_as_unobserved(tmp_path):
    corrected, study = small_study(tmp_path), small_study(tmp_path, all_cells=True)
    space = study.pair_space([0], 0.0)
    assert space.n_pairs == 60 * 40
    assert torch.equal(study.data.train.keys, corrected.data.train.keys)  # the log is the same
    assert torch.equal(study.data.test.keys, corrected.data.test.keys)
    assert not torch.isin(study.data.test.keys, study.data.train.keys).any()
    drawn = BatchSampler(space, "stage", 0, 60 * 40).chunk(0, 1)[0].d
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


# -- configuration -----------------------------------------------------------------------------


@pytest.fixture
def composed(tmp_path, monkeypatch):
    monkeypatch.setenv("UPO_CACHE_DIR", str(tmp_path))

    def dataset(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", overrides=list(overrides)).dataset

    return dataset


@pytest.mark.parametrize("name", ["ml100k", "semisynthetic"])
def test_a_file_has_every_key_and_the_defaults(composed, name):
    config = composed(f"dataset={name}")
    for node, target in ((config, SemiSyntheticDataModule), (config.completion, Completion)):
        assert get_class(node["_target_"]) is target
        wanted = inspect.signature(target).parameters
        assert set(node) - {"_target_"} == set(wanted)
        for key, parameter in wanted.items():
            if key not in ("base", "name", "completion", "cache_dir"):
                assert node[key] == parameter.default, key


def test_a_study_of_ones_own_table(composed, tmp_path):
    log = rows()
    pairs = {(int(u), int(i)): float(r) for u, i, r in zip(*log, strict=True)}
    lines = [f"u{u},i{i},{r}\n" for (u, i), r in pairs.items()]
    (tmp_path / "log.csv").write_text("user,item,rating\n" + "".join(lines))
    config = composed(
        "dataset=semisynthetic",
        f"dataset.base.train={tmp_path / 'log.csv'}",
        "dataset.completion.max_epochs=2",
        "dataset.test_share=1",
        "dataset.p=0.6",
    )
    data = instantiate(config).data
    assert (data.train.n_users, data.train.n_items) == (12, 9)
    assert data.user_ids is not None
    assert len(data.cells) + len(data.test) == 12 * 9


def test_another_dataset_takes_the_place_of_the_table(composed):
    config = composed("dataset=semisynthetic", "dataset@dataset.base=synthetic")
    assert isinstance(instantiate(config).base, SyntheticDataModule)


# -- MovieLens ---------------------------------------------------------------------------------


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
