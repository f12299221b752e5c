"""ASE filters for calculators that have a score and no energy."""

from __future__ import annotations

import math
from typing import Any

from ase import Atoms
from ase.filters import FrechetCellFilter


class ScoreFilter(FrechetCellFilter):
    """Lets ASE's optimizers follow a score to where it vanishes, positions and cell together.

    ASE's optimizers ask for an energy even when they do not use it; this filter answers NaN. FIRE, BFGS, LBFGS and MDMin
    work on forces alone and converge; line searches and ``BasinHopping`` compare energies and must not be used.

    Parameters
    ----------
    atoms : ase.Atoms
        With a :class:`asegen.ScoreCalculator`.
    cell : bool
        Let the cell follow its score too.
    **kwargs
        As for ``ase.filters.FrechetCellFilter``.

    Examples
    --------
    >>> atoms.calc = ScoreCalculator("default", sigma=0.1)
    >>> FIRE(ScoreFilter(atoms)).run(fmax=0.05)
    """

    def __init__(self, atoms: Atoms, cell: bool = True, **kwargs: Any) -> None:
        if not cell:
            kwargs["mask"] = [False] * 6
        super().__init__(atoms, **kwargs)

    def get_potential_energy(self, force_consistent: Any = True, **kwargs: Any) -> float:
        """NaN: a score is not the gradient of an energy."""
        return math.nan
