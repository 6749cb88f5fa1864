"""Keyed randomness: distributions, keys and exact values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from specdec import SpecdecError
from specdec.decoding.randomness import Key, KeyedRandomness, Stream, _mix, row_seeds, uniform
from specdec.distribution import Distribution

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
POSITION, NODE = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F
DRAW, STREAM = 0x165667B19E3779F9, 0x85EBCA77C2B2AE63


def mix(z: int) -> int:
    """The splitmix64 finaliser in Python's big integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(z: int) -> int:
    return z - (1 << 64) if z >= 1 << 63 else z


def counter(seed: int, key: tuple[int, int, int, int]) -> int:
    """The hashed key in big integers."""
    stream, position, node, draw = key
    code = stream * STREAM + position * POSITION + node * NODE + draw * DRAW
    return mix((mix((seed + GOLDEN) & MASK) + code) & MASK)


def uniform_of(bits: int) -> float:
    """The 52 upper bits as a number in (0, 1)."""
    return ((signed(bits) >> 12) + 0.5) / 2**52 + 0.5


def key_at(key: tuple[int, int, int, int]) -> Key:
    stream, position, node, draw = key
    return Key(Stream(stream), torch.tensor([position]), torch.tensor([node]), draw)


int64 = st.integers(-(1 << 63), (1 << 63) - 1)
keys = st.tuples(
    st.integers(0, 2), st.integers(0, 1 << 20), st.integers(0, 4000), st.integers(0, 64)
)


def test_splitmix64_gives_its_published_sequence() -> None:
    # Steele, Lea and Flood's generator from seed 0, as in the reference implementations.
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    states = torch.tensor([signed(((i + 1) * GOLDEN) & MASK) for i in range(3)])
    assert [v & MASK for v in _mix(states).tolist()] == known


@given(int64)
def test_the_mixer_equals_big_integer_arithmetic(value: int) -> None:
    assert _mix(torch.tensor([value])).item() & MASK == mix(value & MASK)


@given(int64, keys)
def test_numbers_are_a_known_function_of_seed_and_key(
    seed: int, key: tuple[int, int, int, int]
) -> None:
    randomness = KeyedRandomness(torch.tensor([seed]))
    tokens = torch.tensor([0, 1, 59, 128_000])
    noise = randomness.exponential(key_at(key), tokens)[0].tolist()
    for token, value in zip(tokens.tolist(), noise, strict=True):
        bits = mix((counter(seed & MASK, key) + token * GOLDEN) & MASK)
        assert value == pytest.approx(-math.log(uniform_of(bits)), rel=1e-12)
    uniform = uniform_of(mix(counter(seed & MASK, key)))
    for probability in (uniform * 0.999, uniform * 1.001):
        heads = randomness.bernoulli(torch.tensor([probability]).double(), key_at(key))
        assert heads.item() == (uniform < probability)


def test_no_two_keys_of_a_row_are_equal() -> None:
    """The difference of two keys is 0 for no positions within 10**11 of each other."""
    inverse = pow(POSITION, -1, 1 << 64)
    node, draw, stream = (
        torch.tensor(signed(prime * inverse & MASK)) for prime in (NODE, DRAW, STREAM)
    )
    nodes = torch.arange(1 << 15) * node
    for draws in range(-300, 301, 7):
        for streams in range(-2, 3):
            positions = (nodes + draws * draw + streams * stream).abs()
            if draws == streams == 0:
                positions = positions[1:]
            assert positions.min() > 10**11


@pytest.mark.parametrize("bits", [0, -1, 1, (1 << 63) - 1, -(1 << 63), 0xFFF, -0x1000])
def test_uniforms_never_reach_either_end_and_noise_is_finite(bits: int) -> None:
    drawn = uniform(torch.tensor([bits]))
    assert drawn.dtype == torch.float64
    assert 0 < drawn.item() < 1
    noise = -drawn.log()
    assert 0 < noise.item() < math.inf


def chi_square(counts: torch.Tensor, probs: torch.Tensor) -> float:
    """The statistic's distance from its mean in standard deviations."""
    expected = probs * counts.sum()
    statistic = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(probs) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


PROBS = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.03, 0.01], dtype=torch.float64)
DRAWS = 20_000


def draws_along(what: str) -> tuple[KeyedRandomness, Key]:
    """A batch of draws that differ in one part of their key alone."""
    along, fixed = torch.arange(DRAWS), torch.full((DRAWS,), 3)
    seeds = {
        "seeds": along,
        "rows": torch.tensor(row_seeds(11, DRAWS)),
    }.get(what, torch.full((DRAWS,), 1234))
    key = Key(
        Stream.TARGET if what != "nodes" else Stream.ACCEPT,
        along if what == "positions" else fixed,
        along if what == "nodes" else 0,
    )
    return KeyedRandomness(seeds), key


@pytest.mark.parametrize("what", ["positions", "seeds", "rows", "nodes"])
def test_categorical_has_its_distribution(what: str) -> None:
    randomness, key = draws_along(what)
    tokens = randomness.categorical(Distribution.of(PROBS.log().expand(DRAWS, -1)), key)
    assert abs(chi_square(tokens.bincount(minlength=len(PROBS)), PROBS)) < 4


@pytest.mark.parametrize("what", ["positions", "seeds", "rows", "nodes"])
@pytest.mark.parametrize("probability", [0.03, 0.5, 0.9])
def test_bernoulli_has_its_probability(what: str, probability: float) -> None:
    randomness, key = draws_along(what)
    heads = randomness.bernoulli(torch.full((DRAWS,), probability), key).double().mean().item()
    assert abs(heads - probability) < 4 * math.sqrt(probability * (1 - probability) / DRAWS)


def test_certain_outcomes_are_certain() -> None:
    randomness, key = draws_along("positions")
    assert randomness.bernoulli(torch.ones(DRAWS), key).all()
    assert not randomness.bernoulli(torch.zeros(DRAWS), key).any()
    never = torch.tensor([0.0, float("-inf"), 0.0]).expand(DRAWS, -1)
    assert not (randomness.categorical(Distribution.of(never), key) == 1).any()
    point = torch.arange(DRAWS) % 5
    assert torch.equal(randomness.categorical(Distribution.at(point, 5), key), point)


def test_draws_with_neighbouring_keys_are_independent() -> None:
    """Pairs of neighbours fill the square evenly, whichever part of the key they differ in."""
    flat = torch.full((DRAWS, 4), 0.25, dtype=torch.float64).log()
    for a, b in (("positions", 1), ("nodes", 1), ("seeds", 1)):
        randomness, key = draws_along(a)
        tokens = randomness.categorical(Distribution.of(flat), key)
        pairs = (tokens[:-b] * 4 + tokens[b:]).bincount(minlength=16)
        assert abs(chi_square(pairs, torch.full((16,), 1 / 16).double())) < 4.5


def test_distinct_keys_give_distinct_numbers() -> None:
    seen: set[float] = set()
    total = 0
    positions = torch.arange(40)
    for seed in (0, 1, -1):
        randomness = KeyedRandomness(torch.full((40,), seed))
        for stream in Stream:
            for node in range(4):
                for draw in range(3):
                    key = Key(stream, positions, torch.full((40,), node), draw)
                    noise = randomness.exponential(key, torch.arange(10)).flatten().tolist()
                    seen.update(noise)
                    total += len(noise)
    assert len(seen) == total


def test_noise_does_not_depend_on_the_batch_or_on_the_tokens_asked_for() -> None:
    seeds = torch.tensor([5, 6, 7])
    whole = KeyedRandomness(seeds).exponential(
        Key(Stream.DRAFT, torch.tensor([3, 9, 1]), torch.tensor([0, 2, 4]), 1), torch.arange(60)
    )
    for row, (position, node) in enumerate([(3, 0), (9, 2), (1, 4)]):
        key = Key(Stream.DRAFT, torch.tensor([position]), torch.tensor([node]), 1)
        some = torch.tensor([[17, 3, 42]])
        alone = KeyedRandomness(seeds[row : row + 1]).exponential(key, some)
        assert torch.equal(alone, whole[row : row + 1, some[0]])


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(2, 40)),
    reach=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_many_draws_at_once_are_the_draws_of_each_position(
    shape: tuple[int, int, int], reach: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = 3 * torch.randn(shape, generator=generator)
    weights[..., 0] = float("-inf")
    ahead = torch.randint(0, reach, shape[:2], generator=generator)
    first = torch.randint(0, 1000, shape[:1], generator=generator)
    randomness = KeyedRandomness(torch.arange(shape[0]) + seed)
    key = Key(Stream.TARGET, first)
    found = randomness.categorical_ahead(Distribution.of(weights), key, ahead, reach)
    for node in range(shape[1]):
        own = Key(Stream.TARGET, first + ahead[:, node])
        due = randomness.categorical(Distribution.of(weights[:, node]), own)
        assert torch.equal(found[:, node], due)


def test_an_int_seed_is_hashed_per_row_and_a_list_is_taken_as_it_is() -> None:
    seeds = row_seeds(7, 5)
    assert len(set(seeds)) == 5
    assert row_seeds(7, 3) == seeds[:3], "a row's seed does not depend on the batch size"
    assert not set(row_seeds(8, 5)) & set(seeds)
    assert row_seeds([3, 1 << 63, -5], 3) == [3, -(1 << 63), -5]
    assert row_seeds(None, 2) != row_seeds(None, 2)
    for row, value in enumerate(seeds):
        assert value == signed(mix((mix(7) + (row + 1) * GOLDEN) & MASK))


@pytest.mark.parametrize("seed", [True, 1.5, "7", [1], [1, 2, 3], [1, 2.0], [True, False]])
def test_other_seeds_are_refused(seed: Any) -> None:
    with pytest.raises(SpecdecError, match="seed"):
        row_seeds(seed, 2)
