from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asegen.prototypes.selection import LIKENESS, distances, select


@pytest.fixture
def family(packaged_mp20):
    return packaged_mp20.table.family((3, 1, 1))


@pytest.fixture
def index(packaged_mp20, family):
    with torch.inference_mode():
        return packaged_mp20.ranker(family, torch.tensor([[8, 20, 22]]))[0].index[0]


def test_distances_are_those_of_the_surroundings(family, index):
    far = distances(family, index)
    assert torch.allclose(far, far.T, atol=1e-5) and far.diagonal().abs().max() < 1e-4 and far.min() > -1e-5
    assert far.max() > 10 * LIKENESS and far.max() < 1.5
    # a prototype that is a slight distortion of another is close to it, whatever its group
    off = far + torch.eye(len(far))
    assert off.min() < LIKENESS
    # exchanging elements in one prototype is a difference, and it is the same from both sides
    prototype, order = family.split(index)
    twin = [(i, j) for i in range(len(index)) for j in range(i) if prototype[i] == prototype[j] and order[i] != order[j]]
    assert twin and np.median([float(far[i, j]) for i, j in twin]) > LIKENESS


def test_distances_compare_element_by_element(packaged_mp20):
    """With three elements in any slots, against the definition written out."""
    family = packaged_mp20.table.family((1, 1, 1))
    index = torch.arange(0, family.num_candidates, 7)[:40]
    vectors = []
    for candidate in index.tolist():
        prototype, order = divmod(candidate, len(family.orders))
        shells = torch.zeros_like(family.environment[prototype])
        for s, a in enumerate(family.orders[order].tolist()):
            for t, b in enumerate(family.orders[order].tolist()):
                shells[a, b] = family.environment[prototype, s, t]
        vectors.append(shells.ravel() / 3**0.5)
    v = torch.stack(vectors)
    size = (v**2).sum(1)
    expected = ((v[:, None] - v[None]) ** 2).sum(-1) / (size[:, None] + size[None])
    assert torch.allclose(distances(family, index), expected, atol=1e-4)
    assert torch.allclose(distances(family, index, index[5:9]), expected[:, 5:9], atol=1e-4)


def likeness(*pairs: tuple[int, int, float], size: int = 3) -> np.ndarray:
    made = np.eye(size)
    for i, j, value in pairs:
        made[i, j] = made[j, i] = value
    return made


def test_without_diversity_the_order_is_that_of_the_probabilities():
    random = np.random.default_rng(0)
    probability = random.random(20)
    found = select(random.random((20, 20)), probability, 0.0)
    assert [k for k, _ in found] == np.argsort(-probability).tolist()
    assert [gain for _, gain in found] == pytest.approx(sorted(probability, reverse=True))


@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0, 1))
def test_gains_fall_and_add_up_to_all_there_is(seed, size, diversity):
    random = np.random.default_rng(seed)
    points = random.random((size, 2))
    near = np.exp(-((points[:, None] - points) ** 2).sum(-1) / 0.1)
    probability = random.random(size)
    found = select(near, probability, diversity)
    gains = [gain for _, gain in found]
    assert sorted(k for k, _ in found) == list(range(size))
    assert all(a >= b - 1e-12 for a, b in pairwise(gains)) and sum(gains) == pytest.approx(probability.sum())
    assert select(near, probability, diversity, n=3) == found[:3]


def test_candidates_like_one_already_taken_are_pushed_back():
    near, probability = likeness((0, 1, 0.99)), np.array([0.5, 0.3, 0.2])
    assert [k for k, _ in select(near, probability, 0.0)] == [0, 1, 2]
    assert [k for k, _ in select(near, probability, 1.0)] == [0, 2, 1]
    # and so are those like what is in the list already
    covered = np.array([0.0, 0.0, 0.9])
    found = select(likeness(), np.array([0.2, 0.25, 0.3]), 1.0, covered)
    assert [k for k, _ in found] == [1, 0, 2] and found[0][1] == pytest.approx(0.25 * 0.75 / 0.48)


def test_like_candidates_support_each_other():
    """Two of one kind with 0.3 each come before one alone with 0.39: either answer would be right."""
    near, probability = likeness((0, 1, 0.9)), np.array([0.3, 0.31, 0.39])
    (first, gain), *_ = select(near, probability, 1.0)
    assert first == 1 and gain == pytest.approx(0.31 + 0.9 * 0.3)
    assert [k for k, _ in select(near, probability, 0.0)] == [2, 1, 0]


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan")])
def test_diversity_is_a_share(diversity):
    with pytest.raises(ValueError, match="between 0 and 1"):
        select(np.eye(2), np.ones(2), diversity)
