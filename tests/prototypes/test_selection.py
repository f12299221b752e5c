import pytest
import torch

from asegen.prototypes.selection import LIKENESS, distances, select


@pytest.fixture
def family(packaged_mp20):
    return packaged_mp20.table.family((3, 1, 1))


@pytest.fixture
def index(packaged_mp20, family):
    with torch.inference_mode():
        return packaged_mp20.ranker(family, torch.tensor([[8, 20, 22]]))[0].index[0]


def spread_out(index):
    return torch.linspace(1, 0.1, len(index), dtype=torch.float64)[torch.randperm(len(index), generator=torch.Generator().manual_seed(0))]


def test_without_diversity_the_order_is_that_of_the_probabilities(family, index):
    probability = spread_out(index)
    order = select(family, index, probability, torch.zeros(len(index), dtype=torch.bool), 0.0)
    assert order == probability.argsort(descending=True).tolist()


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_those_that_are_to_be_first_are_first_and_none_is_lost(family, index, diversity):
    probability = spread_out(index)
    first = torch.zeros(len(index), dtype=torch.bool)
    chosen = probability.argsort()[[0, 7]]
    first[chosen] = True
    order = select(family, index, probability, first, diversity)
    assert set(order[:2]) == set(chosen.tolist()) and sorted(order) == list(range(len(index)))
    if diversity == 0:
        rest = [k for k in order[2:]]
        assert rest == sorted(rest, key=lambda k: -float(probability[k]))


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
    assert twin and all(far[i, j] > 1e-3 for i, j in twin)


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


@pytest.fixture
def three(family, index):
    """Two candidates that are nearly the same crystal, and one that is like neither."""
    far = distances(family, index)
    one, two = divmod(int((far + 10 * torch.eye(len(index))).argmin()), len(index))
    alone = int(torch.minimum(far[one], far[two]).argmax())
    assert far[one, two] < LIKENESS / 2 and min(far[one, alone], far[two, alone]) > 10 * LIKENESS
    return index[[one, two, alone]]


NONE = torch.zeros(3, dtype=torch.bool)


def test_candidates_like_one_already_taken_are_pushed_back(family, three):
    probability = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert select(family, three, probability, NONE, 0.0) == [0, 1, 2]
    assert select(family, three, probability, NONE, 1.0) == [0, 2, 1]
    assert select(family, three, probability, torch.tensor([True, True, False]), 1.0) == [0, 1, 2]


def test_like_candidates_support_each_other(family, three):
    """Two of one kind with 0.3 each come before one alone with 0.4: either answer would be right."""
    probability = torch.tensor([0.3, 0.31, 0.39], dtype=torch.float64)
    assert select(family, three, probability, NONE, 0.5)[0] in (0, 1)
    assert select(family, three, probability, NONE, 0.0) == [2, 1, 0]


@pytest.mark.parametrize("diversity", [-0.1, 1.1, float("nan")])
def test_diversity_is_a_share(family, index, diversity):
    with pytest.raises(ValueError, match="between 0 and 1"):
        select(family, index, spread_out(index), torch.zeros(len(index), dtype=torch.bool), diversity)
