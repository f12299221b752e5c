"""ASE filters for calculators that have a score and no energy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms
from ase.filters import FrechetCellFilter

from ..errors import AsegenError

# Below it the lattice is hardly blurred and its score all error: measured, optimizers then run away (docs/conventions.md).
_SMALLEST_SIGMA = 0.05


class ScoreFilter(FrechetCellFilter):
    """Lets ASE's optimizers follow a score to where it vanishes.

    ASE's optimizers ask for an energy even when they do not use it; this filter answers NaN. FIRE, BFGS and LBFGS work on
    forces alone and converge at noise levels of 0.05 to 0.2 Å; line searches and ``BasinHopping`` compare energies and must not
    be used. With a score ``fmax`` says how far the atoms are from where the model wants them: ``fmax · sigma² / kT``, Å.

    Parameters
    ----------
    atoms : ase.Atoms
        With a :class:`asegen.ScoreCalculator`.
    cell : bool
        Let the cell follow its score too. Off by default, because it does not lead to the crystal's own cell: the lattice is blurred
        around one that is pulled towards a cube, the more the larger sigma is. In a :class:`asegen.SpaceGroup` the shape is held, and
        volumes come out right to some percent. Relax cells with an interatomic potential.
    **kwargs
        As for ``ase.filters.FrechetCellFilter``.

    Raises
    ------
    AsegenError
        When forces are asked for: ``cell=True`` and a sigma below 0.05 Å, where optimizers run away along the cell.

    Examples
    --------
    >>> atoms.calc = ScoreCalculator("default", sigma=0.1)
    >>> FIRE(ScoreFilter(atoms)).run(fmax=0.05)
    """

    def __init__(self, atoms: Atoms, cell: bool = False, **kwargs: Any) -> None:
        self.cell_moves = cell
        if not cell:
            kwargs["mask"] = [False] * 6
        super().__init__(atoms, **kwargs)

    def get_potential_energy(self, force_consistent: Any = True, **kwargs: Any) -> float:
        """NaN: a score is not the gradient of an energy."""
        return math.nan

    def get_forces(self, *args: Any, **kwargs: Any) -> np.ndarray:
        """As in ASE."""
        sigma = getattr(self.atoms.calc, "parameters", {}).get("sigma", math.inf)
        if self.cell_moves and sigma < _SMALLEST_SIGMA:
            raise AsegenError(
                f"at sigma = {sigma:.4g} Å the score of the cell is no guide and optimizers run away along it; set sigma to"
                f" {_SMALLEST_SIGMA} Å or more, or let the positions alone move: ScoreFilter(atoms)"
            )
        return super().get_forces(*args, **kwargs)
