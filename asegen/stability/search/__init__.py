"""Search for the crystal structures of a formula: many starts, all relaxed, the distinct results ranked by energy.

>>> from asegen.stability.search import search
>>> found = search("SrTiO3", n=50)
>>> found.structures[0].energy_per_atom, found.structures[0].times, found.converged
"""

from __future__ import annotations

from ..distinct import Found
from .random_starts import random_start
from .run import METHODS, Search, search

__all__ = ["METHODS", "Found", "Search", "random_start", "search"]
