"""Space groups: their Wyckoff positions, the symmetry of crystals as tensors, an ASE constraint, and symmetric crystals.

>>> from asegen.symmetry import symmetric_crystal
>>> atoms = symmetric_crystal("SrTiO3", "Pm-3m", seed=0)
"""

from __future__ import annotations

from .constraint import SpaceGroup
from .crystal import crystal_from_sites, symmetric_crystal
from .errors import GroupError, SitesError, SymmetryError
from .groups import Group, space_group
from .normalizer import SitesKey, canonical_sites, distinct_sites, draw_distinct_sites
from .sites import check_formula, count_sites, draw_sites, enumerate_sites, format_sites, groups_that_hold, parse_sites
from .symmetry import Symmetry
from .tables import symmetry_of_letters
from .wyckoff import WyckoffPosition

__all__ = [
    "Group",
    "GroupError",
    "SitesError",
    "SitesKey",
    "SpaceGroup",
    "Symmetry",
    "SymmetryError",
    "WyckoffPosition",
    "canonical_sites",
    "check_formula",
    "count_sites",
    "crystal_from_sites",
    "distinct_sites",
    "draw_distinct_sites",
    "draw_sites",
    "enumerate_sites",
    "format_sites",
    "groups_that_hold",
    "parse_sites",
    "space_group",
    "symmetric_crystal",
    "symmetry_of_letters",
]
