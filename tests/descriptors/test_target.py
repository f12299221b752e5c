import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from asegen import CrystalBatch
from asegen.descriptors import EAD, OURS
from asegen.descriptors.target import EPSILON, Target, compared_numbers, pooled, scale_of
from asegen.errors import CrystalError, DescriptorError

KINDS = ("sites", "moments", "extrema")
all_poolings = pytest.mark.parametrize("pooling", KINDS)
SMALL = EAD((0, 1, 2), ((1.0, 1.0), (1.0, 2.5), (3.0, 2.0)), 5.0, True)


def sorted_copy(atoms: Atoms) -> Atoms:
    return atoms[np.argsort(atoms.numbers, kind="stable")]


def invariants_of(atoms: Atoms, ead: EAD = SMALL) -> torch.Tensor:
    return ead(CrystalBatch.from_atoms(atoms))[None]


@all_poolings
def test_values(pooling, crystal):
    target = Target.of(crystal, SMALL, pooling)
    found = invariants_of(sorted_copy(crystal))[0]
    compared = (found / target.scale + EPSILON).sqrt()
    columns = {
        "moments": [compared.mean(0), (compared.var(0, correction=0) + 1e-8).sqrt(), compared.max(0).values, compared.min(0).values],
        "extrema": [compared.max(0).values, compared.min(0).values],
    }
    torch.testing.assert_close(target.values, torch.cat(columns[pooling]) if pooling in columns else compared)
    assert target.numbers.tolist() == [8, 8, 8, 22, 38] and target.ead is SMALL and target.pooling == pooling
    assert target.scale.shape == (SMALL.size,) and (target.scale > 0).all()


@all_poolings
@pytest.mark.parametrize("ead", [SMALL, OURS], ids=["small", "ours"])
def test_the_same_structure_has_no_loss(pooling, ead, crystal):
    """Permuted within and between elements, turned, moved: nothing. Displaced: something."""
    target = Target.of(crystal, ead, pooling)
    random = np.random.default_rng(1)
    copy = crystal[random.permutation(len(crystal))]
    copy.set_cell(copy.cell.array @ Rotation.random(random_state=2).as_matrix(), scale_atoms=True)
    copy.translate([0.3, -2.0, 7.0])
    assert float(target.loss(invariants_of(sorted_copy(copy), ead))) < 1e-15
    torch.testing.assert_close(Target.of(copy, ead, pooling).loss(invariants_of(sorted_copy(crystal), ead)), torch.zeros(1).double())
    copy.rattle(0.1, seed=0)
    assert float(target.loss(invariants_of(sorted_copy(copy), ead))) > 1e-4


def test_atoms_of_one_element_are_paired_with_the_most_alike(crystal):
    """Two oxygens change places: each is compared with the other's target; an oxygen is never compared with a metal."""
    ordered = sorted_copy(crystal)
    target = Target.of(crystal, SMALL, "sites")
    order = [2, 0, 1, 3, 4]
    found = invariants_of(ordered)[:, order]
    compared = compared_numbers(found, target.scale)
    assert target.pairs(compared).tolist() == [order]
    assert float(target.loss(found)) == pytest.approx(0.0, abs=1e-20)
    # metals in each other's places stay there, and cost
    exchanged = invariants_of(ordered)[:, [0, 1, 2, 4, 3]]
    assert target.pairs(compared_numbers(exchanged, target.scale)).tolist() == [[0, 1, 2, 3, 4]]
    assert float(target.loss(exchanged)) > 1e-3
    # of all pairings the best one
    other = crystal.copy()
    other.rattle(0.4, seed=5)
    rows = compared_numbers(invariants_of(sorted_copy(other)), target.scale)
    least = min(
        (rows[0] - target.values[[*p, 3, 4]]).square().mean()
        for p in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    )
    torch.testing.assert_close(target.loss(invariants_of(sorted_copy(other)))[0], least)


@all_poolings
def test_many_trials_at_once(pooling, crystal):
    target = Target.of(crystal, SMALL, pooling)
    trials = []
    for seed in range(4):
        trials.append(sorted_copy(crystal))
        trials[-1].rattle(0.3, seed=seed)
    together = torch.cat([invariants_of(trial) for trial in trials])
    alone = torch.cat([target.loss(invariants_of(trial)) for trial in trials])
    torch.testing.assert_close(target.loss(together), alone)
    assert target.compare(together).shape == (4, {"sites": 5, "moments": 4, "extrema": 2}[pooling] * SMALL.size)
    torch.testing.assert_close(target.loss(together.float()), alone.float(), rtol=1e-4, atol=1e-6)


@all_poolings
def test_the_loss_can_be_differentiated(pooling, crystal):
    """Away from ties of extrema and of pairings; and nothing is infinite at a ρ of 0 or where all atoms are alike."""
    target = Target.of(crystal, SMALL, pooling)
    shaken = sorted_copy(crystal)
    shaken.rattle(0.2, seed=3)
    rho = (invariants_of(shaken) + 0.1 * target.scale).requires_grad_()
    assert torch.autograd.gradcheck(target.loss, (rho,), eps=1e-5, atol=1e-5)
    assert torch.autograd.gradgradcheck(target.loss, (rho,), eps=1e-5, atol=1e-4)
    alike = torch.zeros(1, 5, SMALL.size, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(target.loss(alike).sum(), alike)
    assert torch.isfinite(slope).all()


def test_the_comparison_keeps_the_order_of_numbers():
    """A monotone transform: extrema of the transformed are the transformed extrema."""
    rho = torch.rand(7, SMALL.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 100
    scale = scale_of(SMALL, rho.mean(0))
    compared = compared_numbers(rho, scale)
    assert (compared.argsort(dim=0) == rho.argsort(dim=0)).all()
    expected = torch.cat([compared_numbers(rho.amax(0), scale), compared_numbers(rho.amin(0), scale)])
    torch.testing.assert_close(pooled(compared, "extrema"), expected)
    zeros = torch.zeros(SMALL.size, dtype=torch.float64)
    assert torch.isfinite(compared_numbers(zeros, scale_of(SMALL, zeros))).all()


def test_pooled_invariants(crystal):
    """Largest and smallest ρ, as a generative model gives them, are as good a target as the crystal."""
    rho = invariants_of(sorted_copy(crystal))[0]
    given = torch.cat([rho.amax(0), rho.amin(0)])
    target = Target.from_pooled(SMALL, "extrema", crystal.numbers, given)
    assert target.numbers.tolist() == [8, 8, 8, 22, 38]
    assert float(target.loss(rho[None])) < 1e-20
    shaken = sorted_copy(crystal)
    shaken.rattle(0.2, seed=0)
    assert float(target.loss(invariants_of(shaken))) > 1e-4
    # what a model gives may be slightly impossible: below zero, or smallest above largest
    noisy = given.clone()
    noisy[0], noisy[SMALL.size + 1] = -1.0, given[1] + 5
    odd = Target.from_pooled(SMALL, "extrema", [8], noisy)
    assert torch.isfinite(odd.values).all()
    largest, smallest = odd.values.view(2, -1)
    assert (largest >= smallest).all()


@pytest.mark.parametrize(
    ("pooling", "change", "words"),
    [
        ("sites", lambda rho: rho, "'extrema' only, not for 'sites'"),
        ("moments", lambda rho: rho, "'extrema' only"),
        ("extrema", lambda rho: rho[:-1], "made for other parameters"),
        ("extrema", lambda rho: rho * float("nan"), "finite"),
    ],
)
def test_pooled_invariants_that_do_not_fit(pooling, change, words):
    with pytest.raises(DescriptorError, match=words):
        Target.from_pooled(SMALL, pooling, [8], change(torch.ones(2 * SMALL.size)))


def test_errors_in_words(crystal, rocksalt):
    target = Target.of(crystal)
    target.check(crystal.numbers[::-1])
    with pytest.raises(DescriptorError, match="made for O3TiSr, the crystal is NaCl"):
        target.check(rocksalt.numbers)
    with pytest.raises(DescriptorError, match="made for O3TiSr, the crystal is O2TiSr"):
        target.check(crystal.numbers[:-1])
    with pytest.raises(DescriptorError, match="unknown pooling 'mean'; known: sites, moments, extrema"):
        Target.of(crystal, pooling="mean")
    with pytest.raises(CrystalError):
        Target.of(Atoms("He"))
