"""Finding how the operations of a given space group lie in a given crystal: in which of its settings, or where spglib says.

The group is given, never detected: a crystal that is a little off, or by chance more symmetric, still gets the operations of
its own group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms

from ..crystals import check_atoms
from .errors import SymmetryError
from .groups import Group, space_group
from .lattices import DEMANDS
from .settings import Setting, halls_of, setting, unique_modulo
from .symmetry import Symmetry
from .tables import match_atoms

#: Largest log-strain between a cell and its symmetric average that still counts as having the symmetry.
CELL_TOLERANCE = 0.05
# a setting that fits this well, Å, is taken before one that fits only within the tolerance
_TIGHT = 0.02


@dataclass(frozen=True)
class Fit:
    """Operations of a group in the cell of a crystal, and how well they fit."""

    rotations: np.ndarray
    translations: np.ndarray
    name: str
    """In words: ``standard setting, primitive cell``."""
    strain: float
    """Largest log-strain to the nearest cell that has the symmetry."""
    image: np.ndarray | None = None
    """Permutations of the atoms, shape (g, n); None if the cell does not fit."""
    distance: np.ndarray | None = None
    """How far each image is from its atom, shape (g, n), Å."""
    lattice: np.ndarray | None = None
    """Conventional-to-cell matrix if this is the standard setting, ``cell = lattice @ conventional``; else None."""

    @property
    def worst(self) -> float:
        """Largest distance, Å; infinite if two atoms fall on one."""
        if self.distance is None or self.image is None:
            return np.inf
        onto = np.sort(self.image, axis=1)
        return float(self.distance.max()) if (onto == np.arange(onto.shape[1])).all() else np.inf


def find_fit(group: Group, atoms: Atoms, tolerance: float) -> Fit:
    """The operations of `group` in a crystal.

    Tried in this order: the standard setting (primitive cell, conventional cell), the group's other settings (axes, origin choices)
    in both kinds of cell, and the one that spglib finds, if it finds this group.

    Parameters
    ----------
    group : Group
    atoms : ase.Atoms
    tolerance : float, Å
        An atom may be this far from the image of its partner.

    Raises
    ------
    SymmetryError
        None fits; the message says whether the cell or the positions contradict the group. Or the cell is a supercell
        that does not keep the group's rotations.
    CrystalError
        Not a periodic crystal.
    """
    check_atoms(atoms)
    refuse_partial_occupancy(atoms)
    frac, numbers, cell = atoms.get_scaled_positions(wrap=False), atoms.numbers, atoms.cell.array
    fits = [evaluate(fit, frac, numbers, cell) for fit in _candidates(group, cell)]
    for limit in (min(_TIGHT, tolerance), tolerance):
        for fit in fits:
            if fit.worst <= limit:
                return fit
    seen = ""
    for symprec in sorted({p for p in (tolerance, 0.1, 0.03, 0.01, 1e-3, 1e-4) if p <= tolerance}, reverse=True):
        number, operations = _detect(atoms, symprec)
        if operations is not None and number == group.number:
            kept = len(np.unique(operations[0], axis=0))
            if kept < len(group.rotations):
                raise SymmetryError(
                    f"the cell keeps only {kept} of the {len(group.rotations)} rotations of {group.symbol} ({group.number}): it is a"
                    " supercell less symmetric than the crystal; use the primitive or the conventional cell"
                )
            fit = Fit(*operations, name=f"setting found by spglib at {symprec:g} Å", strain=_strain(operations[0], cell))
            fit = evaluate(fit, frac, numbers, cell)
            if fit.worst <= tolerance:
                return fit
        if number and not seen:
            seen = f"; spglib finds {space_group(number).symbol} ({number}) at {symprec:g} Å"
    raise SymmetryError(_complaint(group, atoms, fits, tolerance) + seen)


def evaluate(fit: Fit, frac: np.ndarray, numbers: np.ndarray, cell: np.ndarray) -> Fit:
    """The fit with its permutations and distances, unless the cell already contradicts it."""
    if fit.strain > CELL_TOLERANCE:
        return fit
    image, distance = match_atoms(frac, numbers, cell, fit.rotations, fit.translations)
    return replace(fit, image=image, distance=distance)


def fit_of_operations(operations: tuple[Any, Any], atoms: Atoms, tolerance: float) -> Fit:
    """The fit of operations that the user gives, ``(rotations, translations)`` of the columns of fractional coordinates.

    Raises
    ------
    SymmetryError
        They are no group modulo the lattice, or the crystal does not have them.
    """
    check_atoms(atoms)
    rotations = np.rint(np.asarray(operations[0], dtype=float)).astype(np.int64).reshape(-1, 3, 3)
    translations = np.asarray(operations[1], dtype=float).reshape(-1, 3)
    if len(rotations) != len(translations) or not _is_group(rotations, translations):
        raise SymmetryError(
            f"the {len(rotations)} rotations and {len(translations)} translations given as operations are not a group modulo the lattice;"
            " give all operations of the cell, as spglib.get_symmetry does"
        )
    cell = atoms.cell.array
    fit = Fit(rotations, translations, "operations given", _strain(rotations, cell))
    fit = evaluate(fit, atoms.get_scaled_positions(wrap=False), atoms.numbers, cell)
    if fit.worst > tolerance:
        reason = f"its cell is off by a strain of {fit.strain:.3f}" if fit.distance is None else _positions_complaint(atoms, fit, tolerance)
        raise SymmetryError(f"the crystal does not have the operations given: {reason}")
    return fit


def labels_of(group: Group, fit: Fit, symmetry: Symmetry, atoms: Atoms) -> list[tuple[str, str]]:
    """Element and Wyckoff label of each site of a crystal that lies exactly on its sites.

    Where no letter can be told (operations given that are not the group's), the label is the number of atoms alone.
    """
    first = symmetry.first.numpy()
    frac = atoms.get_scaled_positions(wrap=False)
    symbols = atoms.get_chemical_symbols()
    counts = symmetry.multiplicity.tolist()
    letters: list[str | None] = [None] * len(first)
    if fit.lattice is not None:
        letters = [_letter(group, frac[i] @ fit.lattice) for i in first]
    else:
        letters = _letters_by_spglib(group, fit, symmetry, atoms)
    return [
        (symbols[i], group.position(letter).label if letter else str(count))
        for i, letter, count in zip(first, letters, counts, strict=True)
    ]  # fmt: skip


def refuse_partial_occupancy(atoms: Atoms) -> None:
    """Raise :class:`SymmetryError` if ``info["occupancy"]`` (as ASE's CIF reader leaves it) has a site that is shared or partly empty."""
    for kind, species in (atoms.info.get("occupancy") or {}).items():
        if len(species) > 1 or any(abs(float(share) - 1) > 1e-3 for share in species.values()):
            mixed = ", ".join(f"{symbol} {float(share):g}" for symbol, share in species.items())
            raise SymmetryError(
                f"site {kind} is occupied by fractions of atoms ({mixed}; atoms.info['occupancy']); the constraint needs whole atoms:"
                " make an ordered cell, then delete atoms.info['occupancy']"
            )


def _candidates(group: Group, cell: np.ndarray) -> Iterator[Fit]:
    halls = [group.hall_number, *(hall for hall in halls_of(group.number) if hall != group.hall_number)]
    for hall in halls:
        one: Setting = setting(hall)
        standard = hall == group.hall_number
        for primitive in (True, False) if one.centring != "P" else (True,):
            rotations, translations = one.operations(primitive)
            words = "standard setting" if standard else f"setting {one.choice or '1'}"
            kind = "cell" if one.centring == "P" else "primitive cell" if primitive else "conventional cell"
            lattice = (one.primitive if primitive else np.eye(3)) if standard else None
            yield Fit(rotations, translations, f"{words}, {kind}", _strain(rotations, cell), lattice=lattice)


def _strain(rotations: np.ndarray, cell: np.ndarray) -> float:
    metric = cell @ cell.T
    mean = (rotations.transpose(0, 2, 1) @ metric @ rotations).mean(0)
    ratio = np.linalg.eigvals(np.linalg.solve(metric, mean)).real
    return float(0.5 * np.abs(np.log(ratio)).max())


def _is_group(rotations: np.ndarray, translations: np.ndarray) -> bool:
    """Whether every product of two operations is one of them, modulo the lattice."""
    kinds: dict[bytes, list[int]] = {}
    for i, rotation in enumerate(rotations):
        kinds.setdefault(rotation.tobytes(), []).append(i)
    sizes = {len(members) for members in kinds.values()}
    if len(sizes) != 1:  # every rotation comes with the same pure translations
        return False
    where = {kind: k for k, kind in enumerate(kinds)}
    shifts = translations[np.array(list(kinds.values()))]
    for rotation, translation in zip(rotations, translations, strict=True):
        found = [where.get(product.tobytes(), -1) for product in rotation @ rotations]
        if min(found) < 0:
            return False
        away = (translations @ rotation.T + translation)[:, None] - shifts[found]
        if (np.abs(away - np.rint(away)).max(-1).min(1) > 1e-2).any():
            return False
    return True


def _detect(atoms: Atoms, symprec: float) -> tuple[int, tuple[np.ndarray, np.ndarray] | None]:
    import spglib

    crystal: Any = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        data: Any = spglib.get_symmetry_dataset(crystal, symprec=symprec)
    except spglib.SpglibError:  # atoms closer than symprec
        return 0, None
    if data is None:
        return 0, None
    return int(data.number), (data.rotations.astype(np.int64), np.asarray(data.translations))


def _letter(group: Group, point: np.ndarray) -> str | None:
    return next((p.letter for p in group.positions if p.parameters_of(point) is not None), None)


def _letters_by_spglib(group: Group, fit: Fit, symmetry: Symmetry, atoms: Atoms) -> list[str | None]:
    """Letters in a setting that is not the standard one, up to the choice among equivalent origins that spglib makes."""
    import spglib

    # atoms of two more kinds on the general position leave spglib no other group to find
    extra = [unique_modulo(fit.rotations @ p + fit.translations) for p in ([0.0713, 0.1277, 0.2139], [0.4179, 0.3451, 0.0523])]
    frac: Any = np.concatenate([atoms.get_scaled_positions(), *extra])
    species: Any = np.concatenate([symmetry.site.numpy() + 3, *(np.full(len(e), k + 1) for k, e in enumerate(extra))])
    try:
        data: Any = spglib.get_symmetry_dataset((atoms.cell.array, frac, species), symprec=1e-4, hall_number=group.hall_number)
    except spglib.SpglibError:
        data = None
    first = symmetry.first.tolist()
    if data is None or data.number != group.number:
        return [None] * len(first)
    return [data.wyckoffs[i] for i in first]


def _complaint(group: Group, atoms: Atoms, fits: list[Fit], tolerance: float) -> str:
    what = f"the crystal does not have {group.symbol} ({group.number}): "
    placed = [fit for fit in fits if fit.distance is not None]
    if not placed:
        a, b, c, *angles = atoms.cell.cellpar()
        nearest = min(fits, key=lambda fit: fit.strain)
        return (
            f"{what}its cell a, b, c = {a:.3f}, {b:.3f}, {c:.3f} Å, angles {', '.join(f'{x:.2f}' for x in angles)}° is off by a strain of"
            f" {nearest.strain:.3f} even in the best setting ({nearest.name}); the {group.lattice_system} conventional cell has"
            f" {DEMANDS[group.lattice_system]}"
        )
    best = min(placed, key=lambda fit: (not np.isfinite(fit.worst), _largest(fit)))
    return what + _positions_complaint(atoms, best, tolerance) + f" (best: {best.name})"


def _largest(fit: Fit) -> float:
    return float(fit.distance.max()) if fit.distance is not None else np.inf


def _positions_complaint(atoms: Atoms, fit: Fit, tolerance: float) -> str:
    assert fit.distance is not None and fit.image is not None
    symbols = atoms.get_chemical_symbols()
    off = fit.distance.max(0)
    far = np.flatnonzero(off > tolerance)
    if len(far):
        shown = ", ".join(f"{symbols[i]}{i} {off[i]:.2f} Å" for i in far[np.argsort(-off[far], kind="stable")][:5])
        rest = f" and {len(far) - 5} more" if len(far) > 5 else ""
        return f"atoms off the images of their partners by more than {tolerance:g} Å: {shown}{rest}"
    for row in fit.image:
        values, times = np.unique(row, return_counts=True)
        if (times > 1).any():
            pair = np.flatnonzero(row == values[times > 1][0])[:2]
            i, j = (int(k) for k in pair)
            return (
                f"sites collide: an operation takes both {symbols[i]}{i} and {symbols[j]}{j} to {symbols[row[i]]}{row[i]};"
                " move or remove one of them, or use a smaller tolerance"
            )
    return f"atoms fit within {float(off.max()):.3f} Å"
