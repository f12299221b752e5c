"""Phonons by finite displacements, and whether a crystal is dynamically stable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ..calculators.potentials import Potential, quiet
from ..calculators.potentials import potential as a_potential
from ..errors import MissingPackageError, StabilityError
from .modes import Mode, modes_at, translation_weights
from .phonon_cells import SYMPREC, StandardCell, mesh_of, multiples, spelled, standard_cell, stars
from .phonon_forces import forces_of
from .phonon_thermal import Thermal, thermal
from .relax import Relaxed
from .sanity import why_not_relax

TOLERANCE = 0.1
"""Frequencies above minus this, THz, count as zero."""
FORCE_LIMIT = 0.01
"""Residual force, eV/Å, above which a crystal is not relaxed."""
STRESS_LIMIT = 0.5
"""Residual stress, GPa, above which a crystal is not relaxed."""
_ROUGH = (
    "the forces of {} are too rough for phonons (with CHGNet the lowest mode of cubic SrTiO3 is −3.45 THz at Γ by displacements of 0.01 Å"
    " and −1.11 THz at R by 0.03 Å); use 7net-0, or ask for rough=True (--rough)"
)


@dataclass(frozen=True)
class Phonons:
    """Phonons of a crystal. Frequencies are THz, imaginary ones negative; wave vectors are fractional in the primitive reciprocal cell.

    Frequencies at *commensurate* wave vectors, those with a whole number of waves in the supercell, follow from the forces alone;
    elsewhere they are interpolated. Stability is decided on the commensurate ones.
    """

    stable: bool
    """Whether no commensurate mode but the translations at Γ is below minus `tolerance`."""
    min_frequency: float
    """Lowest frequency at a commensurate wave vector, translations at Γ left out."""
    q_point: tuple[float, float, float]
    """Where it is."""
    q_label: str
    """``"Γ"``, ``"R"``, …; empty where that is no special point."""
    imaginary: tuple[Mode, ...]
    """Commensurate modes below minus `tolerance`, lowest first, one for each star of wave vectors."""
    interpolated_min: float
    """Lowest frequency anywhere: on the mesh, at special points, at commensurate ones."""
    interpolated_q: tuple[float, float, float]
    """Where it is."""
    interpolated_label: str
    """Its label, or empty."""
    sum_rule: float
    """Largest violation of the acoustic sum rule before it was enforced, eV/Å²."""
    residual_force: float
    """Largest force on an atom of the crystal as it was given, eV/Å."""
    residual_stress: float
    """Largest component of its stress, GPa."""
    energy_per_atom: float
    """eV."""
    thermal: Thermal | None
    """Zero-point energy and what else follows at 300 K; None for an unstable crystal."""
    warnings: tuple[str, ...]
    """What should be known before the result is used."""
    supercell: tuple[int, int, int]
    """Multiples of the conventional cell."""
    atoms_in_supercell: int
    """How many."""
    displacements: int
    """Displaced supercells whose forces were computed."""
    displacement: float
    """Å."""
    mesh: tuple[int, int, int]
    """Divisions of the Γ-centred mesh."""
    tolerance: float
    """THz."""
    potential: str
    """Name of the potential."""
    seconds: float
    """Wall time of all."""
    seconds_forces: float
    """Of which in the potential."""
    cell: StandardCell = field(repr=False)
    """Standard cells, special points, path."""
    model: Potential = field(repr=False)
    """The potential itself."""
    phonopy: Any = field(repr=False, compare=False)
    """The ``phonopy.Phonopy`` object with its force constants, for all else that phonopy can do."""

    @property
    def protocol(self) -> str:
        """How the numbers were obtained, in one line."""
        n = "×".join(map(str, self.supercell))
        return (
            f"{self.potential}; finite displacements of {self.displacement:g} Å in a {n} supercell of the conventional cell"
            f" ({self.atoms_in_supercell} atoms, {self.displacements} displacements), acoustic sum rule enforced; unstable below"
            f" {-self.tolerance:g} THz at commensurate wave vectors; mesh {'×'.join(map(str, self.mesh))} around Γ; no non-analytical term"
        )

    def numbers(self) -> dict[str, Any]:
        """All that is plain: for JSON."""
        left_out = ("imaginary", "thermal", "cell", "model", "phonopy")
        found: dict[str, Any] = {name: value for name, value in vars(self).items() if name not in left_out}
        found["imaginary"] = [{k: v for k, v in vars(mode).items() if k != "eigenvectors"} for mode in self.imaginary]
        found["thermal"] = None if self.thermal is None else vars(self.thermal)
        found["formula"] = self.cell.primitive.get_chemical_formula("metal")
        found["spacegroup"], found["symbol"] = self.cell.spacegroup, self.cell.symbol
        found["protocol"] = self.protocol
        return found

    @property
    def cell_of_modes(self) -> Atoms:
        """The primitive cell with its atoms in the order of the eigenvectors, and the masses used."""
        return _primitive(self.phonopy)

    def frequencies(self, q_points: Any) -> np.ndarray:
        """Frequencies at wave vectors.

        Parameters
        ----------
        q_points : array, shape (n, 3)

        Returns
        -------
        array, shape (n, 3 * atoms of the primitive cell), THz
        """
        found: np.ndarray = np.array(self.phonopy.run_qpoints(np.atleast_2d(q_points)).frequencies)
        return found

    def __str__(self) -> str:
        where = f"{self.q_label} {spelled(self.q_point)}".strip()
        word = "stable" if self.stable else "unstable"
        formula = self.cell.primitive.get_chemical_formula("metal")
        return f"{formula} ({self.cell.symbol}): {word}, lowest {self.min_frequency:.2f} THz at {where}"


def phonons(
    atoms: Atoms | Relaxed,
    potential: str | BaseCalculator | Potential = "7net-0",
    *,
    min_length: float = 7.5,
    supercell: tuple[int, int, int] | None = None,
    displacement: float = 0.01,
    mesh: float | tuple[int, int, int] = 40.0,
    tolerance: float = TOLERANCE,
    symprec: float = SYMPREC,
    max_atoms: int = 400,
    rough: bool = False,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Phonons:
    """Phonons of a relaxed crystal.

    Parameters
    ----------
    atoms : ase.Atoms or Relaxed
        Relaxed with the same potential (:func:`asegen.stability.relax.relax`), or that relaxation; any cell. It is put exactly on the
        symmetry that it has within `symprec`, in the standard orientation.
    potential : str, ASE calculator or Potential
        See :func:`asegen.calculators.potentials.potential`.
    min_length : float, Å
        Each vector of the supercell has at least this length; multiples of the conventional cell above 1 are even.
    supercell : tuple of int, optional
        Multiples of the conventional cell, instead of `min_length`.
    displacement : float, Å
        Of the finite differences. Both signs are taken where symmetry does not make them equal.
    mesh : float or tuple of int
        Points as fine as those of a supercell of this length in Å, or divisions of the primitive reciprocal cell; around Γ.
    tolerance : float, THz
        Frequencies above minus this count as zero.
    symprec : float, Å
    max_atoms : int
        Larger supercells are refused.
    rough : bool
        Allow a potential whose forces are known to be too rough.
    processes : int, optional
        More than one: forces in so many new processes. Default: in this one.
    progress : callable, optional
        Called with how many supercells are done and how many there are.

    Returns
    -------
    Phonons

    Raises
    ------
    StabilityError
        Not a crystal with phonons (overlapping or isolated atoms), a supercell too large, impossible settings, or a rough potential.
    PotentialError
        The potential does not know an element, fails, or returns no finite forces.
    NoEnergyError
        The calculator has no energy in eV.
    MissingPackageError
        phonopy or seekpath is not installed.

    References
    ----------
    Togo, J. Phys. Soc. Jpn. 92, 012001 (2023) (phonopy).
    """
    begin = time.perf_counter()
    atoms = crystal_of(atoms)
    model = a_potential(potential)
    if not (model.smooth or rough):
        raise StabilityError(rough_reason(model))
    for name, value in (
        ("min_length", min_length),
        ("displacement", displacement),
        ("tolerance", tolerance),
        ("symprec", symprec),
        ("mesh", min(mesh) if isinstance(mesh, tuple) else mesh),
    ):
        if not (np.isfinite(value) and value > 0):
            raise StabilityError(f"{name} = {value:g} is not possible; it must be above 0")
    if displacement > 0.2:
        raise StabilityError(f"a displacement of {displacement:g} Å is no small one; 0.01 to 0.05 are usual")
    reason = model.refusal(atoms) or why_not_relax(atoms, model.reach, False)
    if reason is not None:
        raise StabilityError(reason)
    cell = standard_cell(atoms, symprec)
    divisions = mesh if isinstance(mesh, tuple) else mesh_of(cell, mesh)
    if len(divisions) != 3 or min(divisions) < 1:
        raise StabilityError(f"mesh {divisions} is not possible; give three numbers of at least 1, or a length in Å")
    size = supercell or multiples(cell.conventional.cell.array, min_length)
    if len(size) != 3 or min(size) < 1:
        raise StabilityError(f"supercell {size} is not possible; give three numbers of at least 1")
    count = len(cell.conventional) * int(np.prod(size))
    if count > max_atoms:
        raise StabilityError(
            f"the {'×'.join(map(str, size))} supercell would hold {count} atoms, above the limit of {max_atoms};"
            " allow more (max_atoms), or take a shorter min_length"
        )
    if count == 1:
        raise StabilityError("a supercell of one atom has no modes but translations; take a larger one")
    work = _displaced(cell, size, displacement, symprec)
    crystals = [_atoms(found) for found in work.supercells_with_displacements]
    origin = np.array([work.supercell.u2u_map[i] for i in work.supercell.s2u_map])
    found = forces_of(cell.conventional, crystals, origin, model, processes, progress)
    work.forces = found.forces
    work.produce_force_constants()
    sum_rule = float(np.abs(work.force_constants.sum(axis=1)).max())
    work.symmetrize_force_constants(show_drift=False)
    modes = _commensurate_modes(work, cell)
    imaginary = tuple(mode for mode in modes if mode.frequency < -tolerance)
    lowest, at, label = _lowest_anywhere(work, cell, divisions, modes)
    stable = not imaginary
    heard = _warnings(found.residual_force, found.residual_stress, stable, lowest, at, label, tolerance, model)
    if all(np.allclose(mode.q, np.round(mode.q), atol=1e-6) for mode in modes):
        heard.append(
            f"only Γ is commensurate with the {'×'.join(map(str, size))} supercell: modes elsewhere are guessed, and an instability at the"
            " zone boundary cannot be seen; take a larger supercell"
        )
    return Phonons(
        stable=stable,
        min_frequency=modes[0].frequency,
        q_point=modes[0].q,
        q_label=modes[0].label,
        imaginary=imaginary,
        interpolated_min=lowest,
        interpolated_q=at,
        interpolated_label=label,
        sum_rule=sum_rule,
        residual_force=found.residual_force,
        residual_stress=found.residual_stress,
        energy_per_atom=found.energy_per_atom,
        thermal=thermal(work.mesh.frequencies, work.mesh.weights, len(cell.primitive)) if stable else None,
        warnings=tuple(heard),
        supercell=(int(size[0]), int(size[1]), int(size[2])),
        atoms_in_supercell=count,
        displacements=len(crystals),
        displacement=displacement,
        mesh=divisions,
        tolerance=tolerance,
        potential=model.name,
        seconds=time.perf_counter() - begin,
        seconds_forces=found.seconds,
        cell=cell,
        model=model,
        phonopy=work,
    )


def crystal_of(given: Any) -> Atoms:
    """The crystal of what phonons are asked for: atoms, or a relaxation of them.

    Raises
    ------
    StabilityError
        It is something else.
    """
    if isinstance(given, Relaxed):
        return given.atoms
    if not isinstance(given, Atoms):
        raise StabilityError(f"phonons need a crystal (ase.Atoms) or its relaxation, not a {type(given).__name__}")
    return given


def rough_reason(model: Potential) -> str:
    """Why phonons refuse a potential that is not smooth."""
    return _ROUGH.format(model.name)


def _displaced(cell: StandardCell, size: tuple[int, int, int], displacement: float, symprec: float) -> Any:
    """A Phonopy object with displaced supercells."""
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise MissingPackageError("phonons need the packages phonopy and seekpath: pip install 'asegen[phonons]'") from error
    atoms = cell.conventional
    unit = PhonopyAtoms(numbers=atoms.numbers, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions())
    try:
        work = Phonopy(unit, np.diag(size), primitive_matrix=cell.to_primitive, symprec=min(symprec, 1e-3), log_level=0)
        work.generate_displacements(distance=displacement)
    except Exception as error:  # it raises RuntimeError and its own
        raise StabilityError(f"phonopy cannot treat this crystal: {error}") from error
    return work


def _atoms(cell: Any) -> Atoms:
    return Atoms(numbers=cell.numbers, cell=cell.cell, positions=cell.positions, pbc=True)


def _primitive(work: Any) -> Atoms:
    primitive = _atoms(work.primitive)
    primitive.set_masses(work.primitive.masses)
    return primitive


def _commensurate_modes(work: Any, cell: StandardCell) -> list[Mode]:
    """Modes at the commensurate wave vectors, one star each, lowest first."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    matrix = np.round(np.linalg.inv(work.primitive_matrix) @ work.supercell_matrix).astype(int)
    found: list[Mode] = []
    primitive = _primitive(work)
    for star in stars(get_commensurate_points(matrix), cell):
        result = work.run_qpoints([star.q], with_eigenvectors=True)
        found += modes_at(star, result.frequencies[0], result.eigenvectors[0], primitive)
    return sorted(found, key=lambda mode: (round(mode.frequency, 4), mode.q))


def _lowest_anywhere(
    work: Any, cell: StandardCell, divisions: tuple[int, int, int], modes: list[Mode]
) -> tuple[float, tuple[float, float, float], str]:
    """Lowest frequency on the mesh, at special and at commensurate points: THz, where, label."""
    special = list(cell.points.items())
    result = work.run_qpoints([q for _, q in special], with_eigenvectors=True)
    candidates: list[tuple[float, Any, str]] = [(mode.frequency, mode.q, mode.label) for mode in modes[:1]]
    for (name, q), frequencies, vectors in zip(special, result.frequencies, result.eigenvectors, strict=True):
        kept = np.ones(len(frequencies), dtype=bool)
        if name == "Γ":
            n = len(cell.primitive)
            kept[np.argsort(-translation_weights(vectors.T.reshape(-1, n, 3), work.primitive.masses))[:3]] = False
        if kept.any():
            candidates.append((float(frequencies[kept].min()), q, name))
    with quiet():  # divisions without the symmetry of the cell only cost time
        work.run_mesh(divisions, is_gamma_center=True)
    away = np.abs(work.mesh.qpoints).max(1) > 1e-6
    if away.any():
        place = int(np.argmin(np.where(away, work.mesh.frequencies.min(1), np.inf)))
        candidates.append((float(work.mesh.frequencies[place].min()), work.mesh.qpoints[place], ""))
    lowest, q, label = min(candidates, key=lambda entry: round(entry[0], 4))
    return lowest, (float(q[0]), float(q[1]), float(q[2])), label


def _warnings(
    force: float,
    stress: float,
    stable: bool,
    lowest: float,
    q: tuple[float, float, float],
    label: str,
    tolerance: float,
    model: Potential,
) -> list[str]:
    found = []
    if force > FORCE_LIMIT:
        found.append(f"the crystal is not relaxed: a force of {force:.3f} eV/Å is left; its phonons mean little")
    if stress > STRESS_LIMIT:
        found.append(f"the cell is not relaxed: a stress of {stress:.2f} GPa is left; the phonons are those of a strained crystal")
    if stable and lowest < -tolerance:
        where = f"{label} {spelled(q)}".strip()
        found.append(
            f"between the computed wave vectors the interpolation falls to {lowest:.2f} THz (at {where}):"
            " compute a larger supercell (min_length) before calling the crystal stable"
        )
    if not model.smooth:
        found.append(f"the forces of {model.name} are too rough for phonons: frequencies depend on the displacement")
    return found
