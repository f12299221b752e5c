"""Errors about symmetry; each message says what contradicts what, and what to do."""

from __future__ import annotations

from ..errors import AsegenError


class GroupError(AsegenError, ValueError):
    """A space group that does not exist."""


class SitesError(AsegenError, ValueError):
    """Wyckoff positions that do not exist, or that do not add up to the formula."""


class SymmetryError(AsegenError, ValueError):
    """A crystal, or a request, that contradicts the space group it is given."""
