"""From a candidate to a judgement: relaxation, hull, phonons, and the screen that does them all.

>>> from asegen.stability import relax
>>> relax(atoms).energy_per_atom
"""

from __future__ import annotations

from .relax import Relaxed, relax

__all__ = ["Relaxed", "relax"]
