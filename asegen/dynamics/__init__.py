"""Step rules, the ASE dynamics that run them on one ``Atoms``, and the batched driver that runs them on thousands."""

from .annealed import AnnealedLangevin, ReverseODE
from .filters import ScoreFilter
from .rules import Walk

__all__ = ["AnnealedLangevin", "ReverseODE", "ScoreFilter", "Walk"]
