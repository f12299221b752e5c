"""Structures into descriptors and back, and the command that measures it."""

import json

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from typer.testing import CliRunner

from asegen.cli.main import app
from asegen.descriptors.ead import OURS
from asegen.descriptors.target import Target
from asegen.errors import DataError, DescriptorError
from asegen.metrics import match
from asegen.reconstruction import SOLVED, prototype_starts, rebuild, rebuild_crystal
from asegen.roundtrip import reconstruct

PEROVSKITE = crystal(["Sr", "Ti", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.9] * 3 + [90] * 3)
RUTILE = crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90])
SALT = bulk("NaCl", "rocksalt", a=5.6)


@pytest.mark.parametrize("atoms", [PEROVSKITE, RUTILE, SALT], ids=["perovskite", "rutile", "rocksalt"])
def test_a_crystal_comes_back(atoms):
    found = rebuild_crystal(atoms, seed=1)
    assert found.solved and found.rms < SOLVED
    assert match([found.atoms], [atoms], polymorphs=False).row_rms[0] < 0.01
    assert np.allclose(found.atoms.cell.array, atoms.cell.array)


def test_positions_given_are_used_for_nothing_but_the_descriptor():
    turned = PEROVSKITE.copy()
    turned.positions += [0.3, 0.7, 1.1]
    turned = turned[[4, 2, 0, 3, 1]]
    first, second = (rebuild_crystal(a, seed=3) for a in (PEROVSKITE, turned))
    assert np.allclose(first.atoms.positions, second.atoms.positions, atol=1e-3)


def test_pooled_vectors_are_enough_for_small_cells():
    for pooling in ("moments", "extrema"):
        found = rebuild_crystal(PEROVSKITE, pooling=pooling, seed=0)
        assert found.solved
        assert match([found.atoms], [PEROVSKITE], polymorphs=False).row_rms[0] < 0.05


def test_a_prototype_saves_the_search():
    strained = PEROVSKITE.copy()
    strained.set_cell(strained.cell.array * 1.03, scale_atoms=True)
    found = rebuild_crystal(strained, prototypes="default", seed=0)
    assert found.solved and found.rounds == 0
    target = Target.of(strained)
    starts = prototype_starts(target, target, strained.cell.array, "default")
    assert 1 <= len(starts) <= 8 and starts[0].shape == (5, 3)


def test_prototypes_are_laid_into_any_setting_of_the_cell():
    skewed = PEROVSKITE.copy()
    frac = skewed.get_scaled_positions()
    matrix = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 1]])
    cell = matrix @ PEROVSKITE.cell.array
    skewed = Atoms(numbers=PEROVSKITE.numbers, scaled_positions=frac @ np.linalg.inv(matrix), cell=cell, pbc=True)
    assert rebuild_crystal(skewed, prototypes="default", rounds=0).solved


def test_no_rounds_no_solution():
    found = rebuild_crystal(RUTILE, rounds=0)
    assert not found.solved and found.rounds == 0 and found.rms == float("inf")


def test_bad_cells_and_targets():
    target = Target.of(SALT)
    with pytest.raises(DescriptorError, match="span a volume"):
        rebuild(target, np.zeros((3, 3)))
    with pytest.raises(DescriptorError, match="other parameters"):
        Target.from_pooled(OURS, "extrema", [11, 17], torch.zeros(7))


def test_many_structures_and_what_is_measured(tmp_path):
    crystals = [PEROVSKITE, SALT, bulk("Si"), bulk("Cu")]
    broken = SALT.copy()
    broken.positions[0] = np.nan
    seen = []
    found = reconstruct([*crystals, broken], processes=2, out=tmp_path / "out", progress=lambda *a: seen.append(a))
    assert found.n == 5 and found.match_rate == pytest.approx(0.8) and found.failed == 1
    assert found.rmse < 0.01 and found.solved == pytest.approx(0.8) and found.solved_but_wrong == 0
    assert found.seconds_per_structure > 0 and seen[-1] == (4, 4)
    written = ase.io.read(tmp_path / "out" / "structures.extxyz", index=":")
    assert len(written) == 4 and all(a.info["residual"] < SOLVED for a in written)
    again = reconstruct([*crystals, broken], processes=1, out=tmp_path / "out")
    assert again.match_rate == found.match_rate and again.seconds_per_structure == 0.0  # nothing was computed again


def test_a_structure_s_result_does_not_depend_on_the_others():
    alone, together = reconstruct([RUTILE], seed=5, processes=1), reconstruct([RUTILE, SALT], seed=5, processes=2)
    assert np.allclose(alone.crystals[0].positions, together.crystals[0].positions)


def test_errors():
    with pytest.raises(DataError, match="ours, paper"):
        reconstruct([SALT], descriptor="soap")
    with pytest.raises(DataError, match="no crystals"):
        reconstruct([])


def test_command(tmp_path):
    ase.io.write(tmp_path / "two.extxyz", [PEROVSKITE, SALT])
    found = CliRunner().invoke(app, ["reconstruct", str(tmp_path / "two.extxyz"), "--n", "2", "--json", "--processes", "1"])
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert values["match_rate"] == 1.0 and values["rmse"] < 0.01 and values["seconds_per_structure"] > 0
    table = CliRunner().invoke(app, ["reconstruct", str(tmp_path / "two.extxyz"), "--processes", "1", "--prototypes", "default"])
    assert table.exit_code == 0 and "100.0 % match" in table.stdout
