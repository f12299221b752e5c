"""How a crystal is relaxed, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import StabilityError


@dataclass(frozen=True)
class Settings:
    """How a crystal is relaxed."""

    symmetry: str = "keep"
    """``"keep"``: the space group that the start has within 0.01 Å (or its `SpaceGroup` constraint) is kept exactly. ``"free"``: none."""
    cell: str = "free"
    """``"free"`` or ``"fixed"``."""
    symmetrize: bool = True
    """Put the result on a higher group that is found within 0.03 Å, and relax again in it, if that costs less than 0.1 meV/atom."""
    fmax: float = 0.005
    """Largest force left on an atom, eV/Å."""
    smax: float = 0.02
    """Largest component of the stress left, GPa."""
    steps: int = 300
    """Calls of the potential, at most."""
    seconds: float = 600.0
    """Time, at most; what is reached then is given back as not converged."""
    rattle: float = 0.0
    """Random displacement of the start, Å (standard deviation), to leave a saddle point; the symmetry is then free."""
    seed: int = 0
    """Of the random displacement."""
    path: bool = True
    """Keep every step."""

    def __post_init__(self) -> None:
        if self.symmetry not in ("keep", "free"):
            raise StabilityError(f"symmetry = {self.symmetry!r} must be 'keep' or 'free'")
        if self.cell not in ("free", "fixed"):
            raise StabilityError(f"cell = {self.cell!r} must be 'free' or 'fixed'")
        for name in ("fmax", "smax", "steps", "seconds", "rattle"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not np.isfinite(value) or value < 0 or (value == 0 and name != "rattle"):
                raise StabilityError(f"{name} = {value!r} must be a number above 0")
        if self.rattle and self.symmetry == "keep":
            raise StabilityError(f"rattle = {self.rattle} Å needs symmetry='free'")


@dataclass(frozen=True)
class Relaxed:
    """What became of one crystal. Numbers are None where the potential gave none."""

    start: Atoms = field(repr=False)
    """The crystal as given."""
    atoms: Atoms = field(repr=False)
    """The relaxed crystal, with energy, forces and stress (`SinglePointCalculator`); where the relaxation was stopped, the last sane
    state. Moments, tags, other arrays, `FixAtoms` and ``info`` as given, but for energies of another calculation."""
    converged: bool
    """Whether forces and stress are below the limits."""
    reason: str | None
    """Why there is no relaxed crystal, or why it is not converged; None if all is well."""
    energy: float | None
    """eV, of the cell."""
    energy_per_atom: float | None
    """eV."""
    energy_gain: float | None
    """Energy per atom of the start minus that of the result, eV."""
    fmax: float | None
    """Largest force left, eV/Å."""
    smax: float | None
    """Largest component of the stress left, GPa (of the free strains)."""
    calls: int
    """Calls of the potential."""
    displacement: float | None
    """Root mean square displacement of the atoms in the mean cell, their common shift taken out, Å."""
    volume_change: float | None
    """Relative change of the volume."""
    spacegroup_before: int
    """International number by spglib at symprec 0.1 Å; 0: none found."""
    spacegroup: int
    """The same of the result."""
    potential: str
    """Name of the potential."""
    scale: str
    """Its energy scale."""
    seconds: float
    """Time taken in its process."""
    path: tuple[Atoms, ...] = field(default=(), repr=False)
    """Every step with its energy, if asked for; the last one is `atoms`, but for a symmetrisation."""

    @property
    def ok(self) -> bool:
        """Whether there is a relaxed crystal that converged."""
        return self.converged and self.energy is not None

    @property
    def formula(self) -> str:
        """Formula of the cell."""
        return str(self.start.get_chemical_formula("metal"))

    def row(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON and tables."""
        left_out = ("start", "atoms", "path")
        return {"formula": self.formula, **{k: v for k, v in vars(self).items() if k not in left_out}}
