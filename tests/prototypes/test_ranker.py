from dataclasses import replace

import numpy as np
import pytest
import torch
from gallery import build, cluster_of

from asegen.prototypes.fit import prototype_of
from asegen.prototypes.ranker import (
    TAKEN_SCALES,
    TOP,
    ElementMetric,
    Ranker,
    SlotNetwork,
    collect,
    likeness_to_known,
    novelty_features,
    sum_votes,
)
from asegen.prototypes.table import PrototypeTable

HALIDES = [(11, 17), (19, 17), (3, 9), (12, 8), (47, 35)]


def bare(prototype):
    """Without what is known of its one crystal."""
    return replace(prototype, own=np.zeros((0, 0)), hull=np.zeros(0), published=np.zeros(0, bool), material=np.zeros(0, int))


def examples(kind: str, pairs) -> object:
    """A prototype of two elements with these examples."""
    return replace(bare(prototype_of(cluster_of([build(kind)]))), examples=np.array(pairs, dtype=np.uint8))


def binaries(salts=HALIDES, wurtzites=((30, 8), (31, 7)), cesium=((55, 17),)) -> PrototypeTable:
    return PrototypeTable([examples("rocksalt", salts), examples("zincblende", wurtzites), examples("CsCl", cesium)])


def perovskites() -> PrototypeTable:
    """Two prototypes without exchanges, so both orders of the cations are candidates."""
    cubic = replace(
        bare(prototype_of(cluster_of([build("perovskite")]))), examples=np.array([[8, 38, 22], [8, 56, 22], [8, 20, 40]], dtype=np.uint8)
    )
    polar = replace(bare(prototype_of(cluster_of([build("tetragonal PbTiO3")]))), examples=np.array([[8, 82, 22]], dtype=np.uint8))
    return PrototypeTable([cubic, polar])


def only(family, example: int) -> torch.Tensor:
    """One example left out, shape (1, m)."""
    return torch.arange(len(family.owner))[None] == example


@pytest.fixture(scope="module")
def metric() -> ElementMetric:
    torch.manual_seed(0)
    return ElementMetric()


def test_a_vote_is_largest_for_ones_own_elements(metric):
    family = perovskites().family((3, 1, 1))
    vote = metric(family, torch.tensor([[8, 38, 22]]), repeats=False)[0]
    assert vote.shape == (2, 4) and (vote <= 0).all()
    best = divmod(int(vote.argmax()), 4)
    assert best == (0, 0) and abs(float(vote.max())) < 0.01
    again = metric(family, torch.tensor([[8, 38, 22]]))[0] - vote
    changed = torch.zeros(2, 4)
    changed[0, 0] = metric.repeat
    assert torch.allclose(again, changed, atol=1e-6)


@pytest.mark.parametrize("left", range(8))
def test_leaving_one_out_is_as_if_it_had_never_been_there(metric, left):
    """Votes, counts and the nearest example of a table in which the example is, left out, against a table without it."""
    whole = binaries()
    family = whole.family((1, 1))
    sizes = [len(p.examples) for p in whole.prototypes]
    owner = int(family.owner[left])
    number = left - sum(sizes[:owner])
    lists = [p.examples.tolist() for p in whole.prototypes]
    del lists[owner][number]
    query = family.examples[left][None]
    with torch.no_grad():
        found = collect(family, metric(family, query), only(family, left))
        if not lists[owner]:  # the only example: its prototype is no candidate any more
            gone = found.index[0] // 2 == owner
            assert not found.real[0][gone].any() and found.real[0].sum() == 2
            return
        other = binaries(*(tuple(map(tuple, entries)) for entries in lists)).family((1, 1))
        expected = collect(other, metric(other, query))
    assert (found.index == expected.index).all() and (found.real == expected.real).all()
    assert torch.allclose(found.features[found.real], expected.features[expected.real], atol=1e-5)
    assert torch.allclose(found.votes, expected.votes, atol=1e-5)
    present = collect(family, metric(family, query))
    assert not torch.allclose(present.features[present.real], found.features[found.real], atol=1e-2)


def test_votes_of_equal_orders_are_summed_into_one_candidate(metric):
    family = binaries().family((1, 1))
    with torch.no_grad():
        vote = metric(family, torch.tensor([[11, 35]]))
    total, largest = sum_votes(family, vote)
    weight = vote.exp()[0]  # (orders, examples)
    for k in range(3):
        assert float(total[0, 2 * k] * largest.exp()[0]) == pytest.approx(float(weight[:, family.owner == k].sum()), rel=1e-4)
        assert total[0, 2 * k + 1] == 0
    found = collect(family, vote)
    assert found.real.sum() == 3 and set(found.index[0][found.real[0]].tolist()) == {0, 2, 4}
    share = found.features[0, :, 0][found.real[0]].exp()
    assert share.sum() == pytest.approx(1, abs=1e-3)


def test_a_wanted_candidate_is_kept_in_any_case(metric):
    many = PrototypeTable([examples("rocksalt", [(3 + k, 9)]) for k in range(TOP + 20)])
    family = many.family((1, 1))
    vote = metric(family, torch.tensor([[3, 9], [3, 9]]))
    free = collect(family, vote)
    assert free.index.shape == (2, TOP)
    last = next(2 * k for k in range(TOP + 20) if 2 * k not in free.index[0])
    kept = collect(family, vote, wanted=torch.tensor([last, int(free.index[1, 0])]))
    assert kept.index[0].tolist() == [*free.index[0, :-1].tolist(), last] and (kept.index[1] == free.index[1]).all()


def test_the_network_begins_as_the_votes_and_knows_nothing_of_candidates_without_any(metric):
    torch.manual_seed(1)
    network = SlotNetwork().eval()
    family = binaries().family((1, 1))
    elements = torch.tensor([[11, 35], [30, 16]])
    found = collect(family, metric(family, elements))
    log_p = network(family, elements, found).log_softmax(1)
    assert (log_p[~found.real] < -100).all() and torch.allclose(log_p.exp().sum(1), torch.ones(2))
    shares = found.features[..., 0]
    assert (log_p - shares)[found.real].abs().max() < 1.0  # the head is small at the start
    network.head[-1].weight.data.zero_()
    network.head[-1].bias.data.zero_()
    assert torch.allclose(network(family, elements, found)[found.real], shares[found.real], atol=1e-6)


def test_the_network_sees_the_slots_not_their_numbering():
    """Slots of a prototype named in another order: the same logits for the same elements on the same sites."""
    torch.manual_seed(2)
    ranker = Ranker(networks=1)
    base = perovskites().prototypes[0]
    turned = replace(base, environment=base.environment[[0, 2, 1]][:, [0, 2, 1]], examples=base.examples[:, [0, 2, 1]])
    with torch.no_grad():
        results = []
        for prototype in (base, turned):
            ranker.eval()
            ranker.networks[0].direct.weight.fill_(0.3)
            found, log_p, _ = ranker(PrototypeTable([prototype]).family((3, 1, 1)), torch.tensor([[8, 38, 40]]))
            results.append({int(c): float(p) for c, p in zip(found.index[0], log_p[0], strict=True)})
    assert results[0][0] == pytest.approx(results[1][1], abs=1e-4) and results[0][1] == pytest.approx(results[1][0], abs=1e-4)
    assert abs(results[0][0] - results[0][1]) > 1e-3


def test_likeness_to_known_crystals_of_the_formula(metric):
    """1 at every scale for the crystal itself, less for others, falling faster at the smaller scale; nothing if none is known."""
    family = binaries().family((1, 1))
    elements = torch.tensor([[11, 17], [17, 11], [79, 34]])
    with torch.no_grad():
        found = collect(family, metric(family, elements))
        like = likeness_to_known(family, elements, found)
    rock_salt = found.index == 0
    assert like.shape == (*found.index.shape, len(TAKEN_SCALES)) and (like >= 0).all() and (like <= 1).all()
    assert torch.allclose(like[:2][rock_salt[:2]], torch.ones(2, len(TAKEN_SCALES)), atol=1e-3)
    assert (like[:2][found.real[:2] & ~rock_salt[:2]][:, 0] < 0.5).all() and (like[..., 0] <= like[..., 1] + 1e-6).all()
    assert (like[2] == 0).all()
    with torch.no_grad():
        assert (likeness_to_known(family, elements[:1], collect(family, metric(family, elements[:1])), only(family, 0)) == 0).all()
        other = likeness_to_known(family, elements[:1], collect(family, metric(family, elements[:1])), only(family, 1))
    assert torch.allclose(other[0], like[0])


def test_what_is_taken_is_less_likely_for_new_entries_only():
    torch.manual_seed(4)
    ranker = Ranker(networks=1).eval()
    family, elements = binaries().family((1, 1)), torch.tensor([[11, 17]])

    def chances(repeats):
        with torch.no_grad():
            found, log_p, _ = ranker(family, elements, repeats)
        return dict(zip(found.index[0].tolist(), log_p[0].tolist(), strict=True))

    before = {repeats: chances(repeats) for repeats in (True, False)}
    ranker.taken.data[:] = torch.tensor([-1.0, -0.5])
    after = {repeats: chances(repeats) for repeats in (True, False)}
    assert after[False] == before[False]
    odds = [chance[0] - chance[2] for chance in (before[True], after[True])]
    with torch.no_grad():
        found, _, _ = ranker(family, elements)
        like = (likeness_to_known(family, elements, found) @ ranker.taken)[0].tolist()
    by_candidate = dict(zip(found.index[0].tolist(), like, strict=True))
    assert by_candidate[0] == pytest.approx(-1.5, abs=1e-3)  # the known one itself
    assert odds[1] - odds[0] == pytest.approx(by_candidate[0] - by_candidate[2], abs=1e-4) and odds[1] < odds[0] - 0.5


def test_a_ranker_gives_probabilities_and_novelty():
    torch.manual_seed(3)
    ranker = Ranker(networks=3).eval()
    family = binaries().family((1, 1))
    elements = torch.tensor([[11, 17], [79, 34]])
    with torch.no_grad():
        found, log_p, new = ranker(family, elements)
        alone, log_q, _ = ranker(family, elements[1:])
    assert torch.allclose(log_p.exp().sum(1), torch.ones(2), atol=1e-5) and (new < 0).all() and new.shape == (2,)
    assert (found.index[1] == alone.index[0]).all() and torch.allclose(log_p[1], log_q[0], atol=1e-5)
    features = novelty_features(found)
    assert features.shape == (2, 3) and features[0, 0] > features[1, 0]  # more votes for salt than for gold selenide


def test_examples_far_from_the_hull_lose_weight_where_the_stable_crystal_is_asked_for():
    torch.manual_seed(5)
    metric = ElementMetric()
    salt, cesium = examples("rocksalt", [(11, 17)]), examples("CsCl", [(11, 17)])
    table = PrototypeTable([replace(salt, hull=np.array([0.2])), replace(cesium, hull=np.array([0.0]))])
    family, elements = table.family((1, 1)), torch.tensor([[19, 17]])
    with torch.no_grad():
        likely = sum_votes(family, metric(family, elements))[0][0]
        stable = sum_votes(family, metric(family, elements, stable=True))[0][0]
        found = collect(family, metric(family, elements, stable=True), stable=True)
    assert float(likely[0] / likely[2]) == pytest.approx(1, rel=1e-3)
    loss = float(torch.nn.functional.softplus(metric.far)) * 2  # 0.2 eV in tenths
    assert float(stable[0] / stable[2]) == pytest.approx(np.exp(-loss), rel=1e-3)
    # the mean energies of what votes are told, in tenths of an eV
    energies = dict(zip(found.index[0].tolist(), found.features[0, :, 6].tolist(), strict=True))
    assert energies[0] == pytest.approx(2, abs=1e-4) and energies[2] == pytest.approx(0, abs=1e-4)


def test_weights_of_format_1_give_what_they_gave():
    torch.manual_seed(6)
    ranker = Ranker(networks=1).eval()
    family, elements = binaries().family((1, 1)), torch.tensor([[11, 35]])
    weights = {name: value.clone() for name, value in ranker.state_dict().items() if name != "metric.far"}
    for name in ("networks.0.head.0.weight", "networks.0.direct.weight"):
        weights[name][:, -5:] = 0  # what came with energies and formula units
    other = Ranker(networks=1).eval()
    wide = ("head.0.weight", "direct.weight")
    other.load_format_1({name: value[:, :-5] if name.endswith(wide) else value for name, value in weights.items()})
    ranker.load_state_dict({"metric.far": torch.tensor(-20.0), **weights})
    with torch.no_grad():
        assert torch.equal(other(family, elements)[1], ranker(family, elements)[1])
        assert torch.allclose(other(family, elements, stable=True)[1], other(family, elements)[1], atol=1e-5)
