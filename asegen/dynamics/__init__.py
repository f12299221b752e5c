"""Step rules, the ASE dynamics that run them on one ``Atoms``, and the batched driver that runs them on thousands."""

from .annealed import AnnealedLangevin, ReverseODE
from .basin import CrystalBasinHopping
from .filters import ScoreFilter
from .moves import Moves
from .rules import Walk

__all__ = ["AnnealedLangevin", "CrystalBasinHopping", "Moves", "ReverseODE", "ScoreFilter", "Walk"]
