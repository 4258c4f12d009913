from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from upo.core.layers import Sizes
from upo.core.sampling import (
    EpochStream,
    Permutation,
    generator_seed,
    splitmix64,
    stream_key,
    uniform,
)
from upo.models.factorization import MatrixFactorization

INT64 = st.integers(-(2**63), 2**63 - 1)
# (size, columns): square, prime, tiny, unbalanced
DOMAINS = [
    (1, None),
    (2, None),
    (3, None),
    (97, None),
    (100, None),
    (1000, None),
    (91, 13),
    (60, 2),
]
domain = pytest.mark.parametrize(("size", "columns"), DOMAINS)


def loop_splitmix64(x):
    """The published algorithm (Vigna, splitmix64.c) in Python's unbounded integers."""
    mask = 2**64 - 1
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def key_of(*seeds, words=("test",)):
    return stream_key(torch.tensor(seeds), *words)


@given(INT64)
def test_splitmix64_equals_python_integers(x):
    assert splitmix64(torch.tensor([x])).item() % 2**64 == loop_splitmix64(x % 2**64)


def test_splitmix64_gives_the_published_vector():
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + n * golden) % 2**64 for n in range(5)]
    signed = torch.tensor([s - 2**64 if s >= 2**63 else s for s in states])
    # first outputs of the reference implementation for seed 1234567
    assert [x % 2**64 for x in splitmix64(signed).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_uniform_stays_below_one_and_is_flat():
    top = uniform(torch.tensor([-1, 0, 2**63 - 1]))  # all bits, none, all but the sign
    assert top.tolist() == [1 - 2**-53, 0.0, 0.5 - 2**-53]
    u = uniform(splitmix64(torch.arange(100_000)))
    counts = torch.histc(u, 20, min=0, max=1)
    # chi-square with 19 degrees of freedom: exceeds 50 with probability 1e-4, and the hash is fixed
    assert ((counts - 5000) ** 2 / 5000).sum() < 50


@given(
    size=st.integers(1, 400),
    columns=st.none() | st.integers(1, 20),
    key=INT64,
)
@settings(max_examples=150)
def test_a_permutation_is_a_bijection_and_its_inverse_undoes_it(size, columns, key):
    permutation = Permutation(size * columns if columns else size, columns)
    everyone = torch.arange(permutation.size)
    there = permutation(everyone, torch.tensor(key))
    assert torch.equal(there.sort().values, everyone)
    assert torch.equal(permutation.inverse(there, torch.tensor(key)), everyone)


@given(position=st.integers(0, 7_163 * 10_596 - 1), key=INT64)
def test_the_largest_pair_space_is_inverted_too(position, key):
    permutation, key = Permutation(7_163 * 10_596, 10_596), torch.tensor(key)
    there = permutation(torch.tensor([position]), key)
    assert 0 <= there.item() < permutation.size
    assert permutation.inverse(there, key).item() == position


@pytest.mark.parametrize(("size", "columns"), [(0, None), (-1, None), (10, 3)])
def test_an_impossible_domain_is_refused(size, columns):
    with pytest.raises(ValueError, match="size >= 1"):
        Permutation(size, columns)


@domain
@pytest.mark.parametrize("batch", [1, 7, 130])
def test_each_epoch_visits_each_row_once(size, columns, batch):
    key = key_of(3, 4)
    epochs = 4
    steps = -(-size * epochs // batch)
    stream = EpochStream(Permutation(size, columns), key).rows(0, steps, 0, batch, batch)
    rows = stream.flatten(1)[:, : size * epochs].view(2, epochs, size)
    assert torch.equal(rows.sort(-1).values, torch.arange(size).expand_as(rows))


@domain
def test_epochs_and_replicas_are_shuffled_differently(size, columns):
    if size < 60:
        pytest.skip("small domains have few permutations, so orders repeat")
    rows = EpochStream(Permutation(size, columns), key_of(3, 4)).rows(0, 3, 0, size, size)
    orders = {tuple(order) for order in rows.flatten(0, 1).tolist()}
    assert len(orders) == 6


@domain
@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_slices_of_ranks_together_are_the_global_batch(size, columns, ranks):
    stream, batch = EpochStream(Permutation(size, columns), key_of(0, 1)), 13
    whole = stream.rows(5, 4, 0, batch, batch)
    cuts = [batch * r // ranks for r in range(ranks + 1)]
    parts = [stream.rows(5, 4, lo, hi, batch) for lo, hi in pairwise(cuts)]
    assert torch.equal(torch.cat(parts, -1), whole)


@domain
def test_chunking_does_not_matter(size, columns):
    stream = EpochStream(Permutation(size, columns), key_of(0, 1))
    whole = stream.rows(2, 11, 0, 9, 9)
    parts = [stream.rows(2, 4, 0, 9, 9), stream.rows(6, 1, 0, 9, 9), stream.rows(7, 6, 0, 9, 9)]
    assert torch.equal(torch.cat(parts, 1), whole)


@domain
def test_a_replica_of_a_stack_draws_what_its_seed_draws_alone(size, columns):
    permutation, seeds = Permutation(size, columns), [7, 0, 12]
    stack = EpochStream(permutation, key_of(*seeds)).rows(3, 5, 0, 8, 8)
    for r, seed in enumerate(seeds):
        alone = EpochStream(permutation, key_of(seed)).rows(3, 5, 0, 8, 8)
        assert torch.equal(stack[r], alone[0])


def test_a_stream_is_a_function_of_its_arguments_alone():
    def draw():
        return EpochStream(Permutation(100), key_of(1)).rows(0, 3, 0, 10, 10)

    first = draw()
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(draw(), first)


WORDS = [
    ("propensity", "pairs"),
    ("propensity", "observed"),
    ("debias", "pairs"),
    ("debias", "observed"),
    ("pairs", "debias"),
    ("game", "pairs"),
    ("game",),
    ("game", 1),
    ("game", 2),
    (),
    # names that agree in their first eight letters, as roles with a suffix do
    ("propensityu",),
    ("propensityi",),
    ("predictionu",),
    ("predictioni",),
    ("prediction_2",),
]


def test_streams_of_different_names_and_seeds_differ():
    keys = {key for words in WORDS for key in key_of(0, 1, 2, 2**40, words=words).tolist()}
    assert len(keys) == 4 * len(WORDS)
    seeds = {generator_seed(seed, *words) for words in WORDS for seed in (0, 1)}
    assert len(seeds) == 2 * len(WORDS)
    assert min(seeds) >= 0


def test_long_names_start_tables_apart():
    """Truncated names once gave the users and the items of a network the same table."""
    for purpose in ("prediction", "imputation", "propensity"):
        net = MatrixFactorization(Sizes(5, 5, [0]), dim=3, purpose=purpose)
        assert not torch.equal(net.user.weight, net.item.weight)


def chi_square(counts):
    expected = counts.sum() / counts.numel()
    return float(((counts - expected) ** 2 / expected).sum())


def bound(cells):
    """Mean plus five standard deviations of chi-square: passed by chance less than once in 1e5."""
    free = cells - 1
    return free + 5 * (2 * free) ** 0.5


@pytest.mark.parametrize(("size", "columns"), [(50, None), (97, None), (91, 13), (60, 2)])
@pytest.mark.parametrize("position", [0, 1, 37])
def test_a_position_is_uniform_over_the_rows(size, columns, position):
    keys = splitmix64(torch.arange(40_000))
    rows = Permutation(size, columns)(torch.full_like(keys, position), keys)
    assert chi_square(torch.bincount(rows, minlength=size).double()) < bound(size)


@pytest.mark.parametrize(("size", "columns"), [(1000, None), (1600, 40)])
@pytest.mark.parametrize("positions", [(0, 1), (0, 41), (3, 700)])
def test_two_positions_of_an_epoch_are_independent(size, columns, positions):
    keys = splitmix64(torch.arange(40_000))
    permutation = Permutation(size, columns)
    first, second = (permutation(torch.full_like(keys, p), keys) * 10 // size for p in positions)
    counts = torch.bincount(first * 10 + second, minlength=100).double()
    # equal rows cannot meet, which lowers the ten diagonal cells by 10 / size of their share: at
    # size 1000 and 400 pairs a cell this adds 10 * 400 * 1e-4 = 0.4 to a bound of 169
    assert chi_square(counts) < bound(100)


def test_neighbours_in_one_column_are_nearly_independent():
    """The price of four rounds: such a pair stays in neighbouring rows once in `columns` draws."""
    keys = splitmix64(torch.arange(40_000))
    permutation = Permutation(1600, 40)
    first, second = (permutation(torch.full_like(keys, p), keys) // 40 for p in (0, 40))
    kept = float(((second - first) % 40 == 1).double().mean())
    # by chance in 1 / 40 of the draws, by a collision in another 1 / 40; standard error 0.0011
    assert kept < 2 / 40 + 5 * 0.0011


@pytest.mark.parametrize(("size", "columns"), [(1000, None), (1600, 40)])
def test_batches_spread_over_the_domain(size, columns):
    """Tenths of the domain in batches of 20: as in drawing without replacement."""
    stream = EpochStream(Permutation(size, columns), key_of(*range(100)))
    rows = stream.rows(0, 40, 0, 20, 20)  # within the first epoch
    counts = torch.stack([(rows * 10 // size == d).sum(-1) for d in range(10)]).double()
    share, rest = 0.1, (size - 20) / (size - 1)
    variance = 20 * share * (1 - share) * rest
    # 40,000 hypergeometric counts; their sample variance has a relative sd of about 0.01, and
    # counts of one epoch are tied, so five times that is asked
    assert abs(float(((counts - 2) ** 2).mean()) / variance - 1) < 0.05
