"""The network says the same of the same crystal, however it is written, and something finite of any crystal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell
from scipy.spatial.transform import Rotation

from asegen.errors import CrystalError
from asegen.networks import cgcnn
from asegen.networks.cgcnn import CGCNN, LocalGraph, local_graph


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CGCNN(width=16, layers=3, hidden=12).double().eval()


def answer(network, *crystals):
    with torch.no_grad():
        activations, energies = network(LocalGraph.join([local_graph(atoms) for atoms in crystals]))
    return torch.cat([activations, energies[:, None]], 1).numpy()


def rotated(atoms):
    turn = Rotation.random(random_state=1).as_matrix()
    return Atoms(atoms.numbers, positions=atoms.positions @ turn, cell=atoms.cell.array @ turn, pbc=True)


def moved(atoms):
    copy = atoms.copy()
    copy.positions += [3.1, -7.7, 0.4]
    return copy


def permuted(atoms):
    return atoms[np.random.default_rng(0).permutation(len(atoms))]


def repeated(atoms):
    return atoms.repeat((2, 1, 3))


def other_cell(atoms):
    return make_supercell(atoms, [[1, 1, 0], [0, 1, -2], [0, 0, 1]], wrap=False)


def mirrored(atoms):
    return Atoms(atoms.numbers, positions=-atoms.positions, cell=-atoms.cell.array, pbc=True)


# perfect crystals are the hard case: their neighbours are at equal distances
CRYSTALS = {
    "fcc": bulk("Cu"),
    "bcc": bulk("Fe", cubic=True),
    "rocksalt": bulk("NaCl", "rocksalt", a=5.64),
    "perovskite": Atoms(
        "SrTiO3", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]], cell=[3.9] * 3, pbc=True
    ),
}


@pytest.mark.parametrize("name", [*CRYSTALS, "crystal"])
@pytest.mark.parametrize("change", [rotated, moved, permuted, repeated, other_cell, mirrored])
def test_same_crystal_same_answer(network, crystal, name, change):
    atoms = crystal if name == "crystal" else CRYSTALS[name]
    np.testing.assert_allclose(answer(network, change(atoms)), answer(network, atoms), atol=1e-9)


def test_batch_does_not_matter(network, crystal, rocksalt):
    together = answer(network, crystal, rocksalt, crystal)
    np.testing.assert_allclose(together[0], answer(network, crystal)[0], atol=1e-12)
    np.testing.assert_allclose(together[1], answer(network, rocksalt)[0], atol=1e-12)
    network.train()
    np.testing.assert_allclose(answer(network, crystal, rocksalt, crystal), together, atol=1e-12)
    network.eval()


def test_parts_of_edges_do_not_matter(network, crystal, monkeypatch):
    whole = answer(network, crystal)
    monkeypatch.setattr(cgcnn, "_EDGES_AT_A_TIME", 7)
    np.testing.assert_allclose(answer(network, crystal), whole, atol=1e-12)


def test_elements_and_distances_matter(network, rocksalt):
    other = rocksalt.copy()
    other.numbers[0] = 19
    larger = rocksalt.copy()
    larger.set_cell(larger.cell * 1.02, scale_atoms=True)
    for changed in (other, larger):
        assert np.abs(answer(network, changed) - answer(network, rocksalt)).max() > 1e-4


def test_continuous(network, crystal):
    """Atoms that move a little, some in and out of reach, change the answer a little."""
    random = np.random.default_rng(0)
    direction = random.normal(size=(len(crystal), 3))
    answers = []
    for step in np.linspace(0, 0.4, 81):
        atoms = crystal.copy()
        atoms.positions += step * direction
        answers.append(answer(network, atoms)[0])
    steps = np.abs(np.diff(answers, axis=0)).max(1)
    assert steps.max() < 6 * np.median(steps)


def test_weights_of_neighbours():
    graph = local_graph(bulk("Cu"))  # 12 at one distance, the next 1.41 times as far
    assert len(graph.source) == 12
    assert graph.weight.tolist() == [1.0] * 12
    graph = local_graph(bulk("Fe"))  # 8 and 6 at 1.155 times the distance, the next at 1.63
    assert len(graph.source) == 14
    lonely = local_graph(Atoms("He", cell=[20] * 3, pbc=True))
    assert len(lonely.source) == 0
    loose = local_graph(Atoms("He", cell=[7] * 3, pbc=True))  # 6 within 8 Å
    assert len(loose.source) == 6


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("He", cell=[30] * 3, pbc=True),
        Atoms("Po", cell=[3.3] * 3, pbc=True),
        Atoms("NaCl", positions=np.zeros((2, 3)), cell=[5] * 3, pbc=True),
        Atoms("C40", positions=np.random.default_rng(0).normal(scale=0.05, size=(40, 3)), cell=[8] * 3, pbc=True),
        Atoms("C20", scaled_positions=np.random.default_rng(1).random((20, 3)), cell=[1] * 3, pbc=True),
        Atoms("C2", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[[9, 0, 0], [8.99, 0.2, 0], [0, 0, 5]], pbc=True),
        Atoms("C2", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[0.3, 9, 40], pbc=True),
    ],
)
def test_odd_crystals_have_finite_answers(network, atoms):
    found = answer(network, atoms)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 1e3
    np.testing.assert_allclose(answer(network, atoms.repeat((1, 2, 1))), found, atol=1e-9)


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms(cell=[3] * 3, pbc=True),
        Atoms("C", cell=[3, 3, 0], pbc=True),
        Atoms("C", cell=[3] * 3),
        Atoms("C", positions=[[np.nan] * 3], cell=[3] * 3, pbc=True),
        Atoms("C2000", positions=np.zeros((2000, 3)), cell=[9, 9, 1e-2], pbc=True),
        Atoms("C1100", positions=np.zeros((1100, 3)), cell=[30] * 3, pbc=True),
    ],
)
def test_no_crystals_have_a_sentence(atoms):
    with pytest.raises(CrystalError, match="crystal"):
        local_graph(atoms)


def test_large_cell(network):
    random = np.random.default_rng(0)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((4, 4, 4))
    atoms.positions += random.normal(scale=0.1, size=(512, 3))
    assert np.isfinite(answer(network, atoms)).all()


def test_learns(crystal, rocksalt):
    """A few steps tell crystals apart."""
    torch.manual_seed(0)
    network = CGCNN(width=16, layers=2, hidden=16)
    graph = LocalGraph.join([local_graph(atoms) for atoms in (crystal, rocksalt, bulk("Cu"))]).to(torch.float32)
    wanted = torch.tensor([1.0, -1.0, 0.3])
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(graph)[1] - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 1e-2
