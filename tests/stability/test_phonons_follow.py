"""Imaginary modes, followed downhill."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from asegen.errors import StabilityError
from asegen.stability.modes import combinations, displaced, patterns
from asegen.stability.phonon_follow import fix, follow
from asegen.stability.phonons import _commensurate_modes, phonons

THZ = 15.6333
SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]


def energy(atoms):
    atoms.calc = EMT()
    return atoms.get_potential_energy(force_consistent=True)


@pytest.mark.parametrize(
    "crystal", [bulk("Cu", a=3.59), Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[2.75, 2.75, 3.85], pbc=True)]
)
def test_energy_along_every_mode_has_its_curvature(crystal):
    """Real and complex wave vectors, in the smallest cell: E'' = ω² Σ m u²."""
    found = phonons(crystal, EMT(), supercell=(4, 4, 4) if len(crystal) == 1 else (2, 2, 2))
    modes = _commensurate_modes(found.phonopy, found.cell)
    assert len(modes) > 8
    for mode in modes:
        supercell, moves = patterns(mode, found.cell_of_modes)
        assert len(moves) in (mode.degeneracy, 2 * mode.degeneracy)
        step = 0.01
        one = tuple(int(i == 0) for i in range(len(moves)))
        rest = energy(supercell.copy())
        both = energy(displaced(supercell, moves, one, step)) + energy(displaced(supercell, moves, one, -step))
        inertia = (supercell.get_masses()[:, None] * moves[0] ** 2).sum()
        curvature = (both - 2 * rest) / step**2 / inertia
        assert np.sign(curvature) * np.sqrt(abs(curvature)) * THZ == pytest.approx(mode.frequency, abs=0.03)


def test_bcc_copper_becomes_close_packed():
    unstable = phonons(bulk("Cu", "bcc", a=2.8556), EMT(), supercell=(2, 2, 2))
    fixed = fix(unstable, supercell=(2, 2, 2))
    assert fixed.ok and fixed.reason is None and fixed.phonons.stable
    assert [step.spacegroup for step in fixed.steps] == [194]  # Burgers' path
    assert fixed.gain == pytest.approx(unstable.energy_per_atom - fixed.phonons.energy_per_atom)
    assert 0.02 < fixed.gain < 0.05
    assert len(fixed.atoms) == 2
    assert "P6_3/mmc" in str(fixed.steps[0])


def test_only_the_modes_asked_for():
    unstable = phonons(bulk("Cu", "bcc", a=2.8556), EMT(), supercell=(2, 2, 2))
    with pytest.raises(StabilityError, match="no imaginary mode at Γ, only at N"):
        follow(unstable, at="gamma")
    with pytest.raises(StabilityError, match="above 0"):
        follow(unstable, amplitudes=(0.0,))


def test_nothing_to_follow():
    stable = phonons(bulk("Cu", a=3.59), EMT(), supercell=(2, 2, 2))
    with pytest.raises(StabilityError, match="stable"):
        follow(stable)
    fixed = fix(stable)
    assert fixed.ok and not fixed.steps and fixed.gain == 0 and len(fixed.atoms) == 1


def test_combinations():
    assert list(combinations(1)) == [(1,)]
    assert list(combinations(2)) == [(1, 0), (0, 1), (1, 1)]
    assert len(list(combinations(3))) == 7
    first, *_, last = combinations(4)
    assert first == (1, 0, 0, 0) and last == (1, 1, 1, 1)


def test_strontium_titanate_tilts():
    """Cubic SrTiO3 with 7net-0: unstable at Γ (polar) and R (tilts); following R finds a0a0c-, I4/mcm."""
    pytest.importorskip("sevenn")
    cubic = Atoms("SrTiO3", scaled_positions=SITES, cell=[3.944] * 3, pbc=True)
    unstable = phonons(cubic)
    assert unstable.supercell == (2, 2, 2) and not unstable.stable
    at = {mode.label: mode for mode in unstable.imaginary}
    assert at["R"].degeneracy == 3 and at["R"].moves["O"] > 0.999
    assert at["R"].frequency == pytest.approx(-1.95, abs=0.1)
    assert at["Γ"].frequency == pytest.approx(-3.24, abs=0.2)
    supercell, moves = patterns(at["R"], unstable.cell_of_modes)
    assert len(supercell) == 10 and len(moves) == 3
    # each partner turns the octahedra about one axis: nothing moves along it
    assert sorted(int(np.abs(move).max(0).argmin()) for move in moves) == [0, 1, 2]
    found = follow(unstable, at="R")
    tilted = next(descent for descent in found if descent.spacegroup == 140)
    assert len(tilted.atoms) == 10 and tilted.gain > 3e-4
    assert {descent.spacegroup for descent in found} <= {140, 74, 167}
