"""From a candidate to a judgement: relaxation, hull, phonons, and the screen that does them all.

>>> from asegen.stability import hull_distance, phonons, relax, screen
>>> relax(atoms).energy_per_atom
"""

from __future__ import annotations

from .hull import HullResult, hull_distance
from .phonons import Phonons, phonons
from .polymorphs import Polymorph, polymorphs
from .relax import Relaxed, relax
from .screening import Screening, screen

__all__ = [
    "HullResult",
    "Phonons",
    "Polymorph",
    "Relaxed",
    "Screening",
    "hull_distance",
    "phonons",
    "polymorphs",
    "relax",
    "screen",
]
