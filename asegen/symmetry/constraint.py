"""A space group as an ASE constraint: positions, cell, forces, momenta and stress stay in the group that was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixConstraint
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from ..ase_plugin import register_constraint
from .errors import SymmetryError
from .finding import find_fit, fit_of_operations, labels_of
from .groups import Group, space_group
from .symmetry import Symmetry
from .tables import symmetry_of_atoms

#: Largest log-strain (principal value) of one change of the cell; what goes beyond is cut back to it, in the same direction.
LARGEST_STEP = 0.5


class SpaceGroup(FixConstraint):
    """Keep a crystal in a given space group.

    Unlike ``ase.constraints.FixSymmetry`` the group is given, not detected, so it holds for random starts; atoms are put exactly
    on their sites at every step, so nothing drifts; and large steps of the cell are cut back instead of refused.

    Parameters
    ----------
    group : Group, int or str
    atoms : ase.Atoms
        Primitive, conventional or any other cell of the crystal. Its atoms and cell are moved exactly onto the symmetry.
    tolerance : float, Å
        How far an atom may be from the image of its partner. Also the largest symprec that spglib is asked with.
    operations : tuple of arrays, optional
        ``(rotations, translations)`` of the cell, shapes (g, 3, 3) and (g, 3), if they are known; default: found
        (:func:`asegen.symmetry.finding.find_fit`).

    Attributes
    ----------
    group : Group
    symmetry : Symmetry
        Of this one crystal.
    sites : list of (element, label)
        Occupied Wyckoff positions, ``[("Sr", "1a"), ...]``, in the order of ``symmetry``'s sites. The label is the number of atoms
        alone where no letter can be told (operations given that are not the group's).
    setting : str
        How the group lies in the cell, in words.

    Raises
    ------
    GroupError
        There is no such group.
    SymmetryError
        The crystal does not have it; the message says what contradicts.

    Notes
    -----
    A step of the positions is projected linearly on the symmetric displacements and then put exactly on the sites. A step of the cell
    ``C → C F`` is split into strain and rotation; the log of the strain is projected on the symmetric strains and no principal
    value of it exceeds 0.5. Atoms of one site must have the same mass.

    Positions are taken as they come, not wrapped: an atom set back by a lattice vector has made a step of that length.
    (``atoms.wrap()`` passes by the constraints and does no harm.)

    The cell given is taken as a cell of the group where that fits: a 2 × 2 × 2 supercell of a perovskite has Pm-3m with the
    lattice of the supercell, and its atoms may move accordingly. To keep the smaller lattice, give `operations`.

    The constraint survives ``atoms.copy()`` and ``.traj`` files. extxyz files keep no constraint
    of this kind; make it again from ``atoms.info["spacegroup"]``.

    Examples
    --------
    >>> atoms.set_constraint(SpaceGroup("Pnma", atoms))
    >>> FIRE(FrechetCellFilter(atoms)).run(fmax=0.01)
    """

    def __init__(
        self,
        group: Group | int | str,
        atoms: Atoms | None = None,
        tolerance: float = 0.3,
        operations: tuple[Any, Any] | None = None,
        *,
        table: Mapping[str, Any] | None = None,
    ) -> None:
        self.group: Group = space_group(group)
        self.tolerance = float(tolerance)
        if table is not None:  # from todict: nothing has to be found again
            self.symmetry = Symmetry.of_values(table["symmetry"])
            self.sites = [(str(element), str(label)) for element, label in table["sites"]]
            self.setting = str(table["setting"])
            return
        if atoms is None:
            raise SymmetryError("SpaceGroup needs the crystal it is for: SpaceGroup(group, atoms)")
        if not tolerance > 0:
            raise SymmetryError(f"tolerance = {tolerance!r} Å must be positive")
        fit = find_fit(self.group, atoms, tolerance) if operations is None else fit_of_operations(operations, atoms, tolerance)
        assert fit.image is not None
        self.symmetry = symmetry_of_atoms(atoms.get_scaled_positions(wrap=False), fit.rotations, fit.translations, fit.image)
        self.setting = fit.name
        self.snap(atoms)
        self.sites = labels_of(self.group, fit, self.symmetry, atoms)

    @classmethod
    def of_symmetry(cls, group: Group, symmetry: Symmetry, numbers: np.ndarray, sites: Sequence[tuple[str, str]]) -> SpaceGroup:
        """The constraint of a crystal whose symmetry is known because it was built from its sites."""
        if len(symmetry) != 1 or len(numbers) != len(symmetry.site) or len(sites) != symmetry.num_sites:
            raise SymmetryError(
                f"{len(numbers)} atoms and {len(sites)} sites do not belong to a symmetry of {len(symmetry.site)} atoms"
                f" and {symmetry.num_sites} sites in {len(symmetry)} crystals"
            )
        self = cls.__new__(cls)
        self.group, self.symmetry, self.tolerance = group, symmetry, 0.3
        self.sites, self.setting = list(sites), "built from its sites"
        return self

    def __repr__(self) -> str:
        sites = " ".join(f"{element}:{label}" for element, label in self.sites)
        return f"SpaceGroup({self.group.symbol} ({self.group.number}), {sites or 'no atoms'}; {self.setting})"

    @property
    def degrees_of_freedom(self) -> tuple[int, int]:
        """Free parameters of the positions and of the cell."""
        return int(self.symmetry.dof[0]), int(self.symmetry.cell_dof[0])

    def snap(self, atoms: Atoms) -> None:
        """Move a crystal that is nearly symmetric exactly onto its sites and lattice."""
        frac = torch.from_numpy(atoms.get_scaled_positions(wrap=False))
        cell = self.symmetry.cells(torch.from_numpy(atoms.cell.array.copy())[None])[0].numpy()
        atoms.set_cell(cell, apply_constraint=False)
        atoms.set_positions(self.symmetry.positions(frac).numpy() @ cell, apply_constraint=False)

    def adjust_positions(self, atoms: Atoms, new: np.ndarray) -> None:
        """Keep the symmetric part of the step from ``atoms.positions`` to `new`, (n, 3), Å, in place."""
        self._check(new)
        cell = atoms.cell.array
        inverse = np.linalg.inv(cell)
        step = self.symmetry.displacements(torch.from_numpy((new - atoms.positions) @ inverse))
        frac = torch.from_numpy(atoms.positions @ inverse) + step
        new[:] = self.symmetry.positions(frac).numpy() @ cell

    def adjust_forces(self, atoms: Atoms, forces: np.ndarray) -> None:
        """Keep the symmetric part of Cartesian vectors, (n, 3), in place."""
        self._check(forces)
        cell = atoms.cell.array
        frac = torch.from_numpy(forces @ np.linalg.inv(cell))
        forces[:] = self.symmetry.displacements(frac).numpy() @ cell

    def adjust_momenta(self, atoms: Atoms, momenta: np.ndarray) -> None:
        """Keep the symmetric part of the momenta, (n, 3), in place."""
        self.adjust_forces(atoms, momenta)

    def adjust_stress(self, atoms: Atoms, stress: np.ndarray) -> None:
        """Keep the symmetric part of a stress, (6,), Voigt order, in place."""
        full = torch.from_numpy(voigt_6_to_full_3x3_stress(stress).astype(float))[None]  # potentials return float32
        cell = torch.from_numpy(atoms.cell.array.copy())[None]
        stress[:] = full_3x3_to_voigt_6_stress(self.symmetry.strains(full, cell)[0].numpy())

    def adjust_cell(self, atoms: Atoms, cell: Any) -> None:
        """Keep the symmetric part of the step from ``atoms.cell`` to `cell`, (3, 3), Å, in place; its rotation stays."""
        old = atoms.cell.array
        deformation = np.linalg.solve(old, np.asarray(cell))
        if not np.isfinite(deformation).all():
            raise SymmetryError("the new cell has an entry that is not a finite number")
        left, stretch, right = np.linalg.svd(deformation)
        rotation = left @ right
        if np.linalg.det(rotation) < 0:
            rotation = -rotation  # a step never turns a crystal inside out
        logs = np.log(np.maximum(stretch, 1e-300))
        strain = torch.from_numpy((left * logs) @ left.T)[None]
        kept = self.symmetry.strains(strain, torch.from_numpy(old.copy())[None])[0].numpy()
        values, vectors = np.linalg.eigh(0.5 * (kept + kept.T))
        values = values * min(1.0, LARGEST_STEP / max(np.abs(values).max(), 1e-300))
        moved = old @ (vectors * np.exp(values)) @ vectors.T @ rotation
        cell[:] = self.symmetry.cells(torch.from_numpy(moved)[None])[0].numpy()

    def get_removed_dof(self, atoms: Atoms) -> int:
        """Degrees of freedom of the positions that the symmetry takes away."""
        return 3 * len(self.symmetry.site) - self.degrees_of_freedom[0]

    def index_shuffle(self, atoms: Atoms, ind: Any) -> None:
        """Follow a selection or a new order of the atoms.

        Raises
        ------
        SymmetryError
            A site is torn: some of its atoms are left out, or one is repeated.
        IndexError
            Nothing is left; ASE then drops the constraint.
        """
        total = len(self.symmetry.site)
        chosen = np.arange(total)[ind]
        if len(chosen) == 0:
            raise IndexError("no atoms are left for the space group")
        site = self.symmetry.site.numpy()
        counts = np.bincount(site[chosen], minlength=self.symmetry.num_sites)
        torn = (counts > 0) & (counts != self.symmetry.multiplicity.numpy())
        if torn.any() or len(set(chosen.tolist())) != len(chosen):
            which = ", ".join(f"{e} on {label}" for (e, label), bad in zip(self.sites, torn, strict=True) if bad) or "an atom twice"
            raise SymmetryError(
                f"the atoms chosen break {self.group.symbol}: they take only part of a site, or repeat it ({which});"
                " choose whole sites, or remove the constraint first (atoms.set_constraint())"
            )
        kept = np.flatnonzero(counts > 0)
        number = np.cumsum(counts > 0) - 1
        atom_rows, site_rows = {"rotation", "shift"}, {"stabilizer", "origin", "lift", "fold"}
        old = {field.name: getattr(self.symmetry, field.name) for field in fields(Symmetry)}
        new = {name: v[chosen] if name in atom_rows else v[kept] if name in site_rows else v for name, v in old.items()}
        new["site"], new["num_atoms"] = torch.from_numpy(number[site[chosen]]), torch.tensor([len(chosen)])
        self.symmetry = Symmetry(**new)
        self.sites = [self.sites[k] for k in kept]

    def todict(self) -> dict[str, Any]:
        """Plain numbers and text, as ASE stores constraints."""
        table = {"symmetry": self.symmetry.values(), "sites": [list(pair) for pair in self.sites], "setting": self.setting}
        return {"name": "SpaceGroup", "kwargs": {"group": self.group.number, "tolerance": self.tolerance, "table": table}}

    def _check(self, vectors: np.ndarray) -> None:
        if len(vectors) != len(self.symmetry.site):
            raise SymmetryError(
                f"the space group {self.group.symbol} was set for {len(self.symmetry.site)} atoms, the crystal has {len(vectors)};"
                " remove the constraint (atoms.set_constraint()) and make it again"
            )


register_constraint()
