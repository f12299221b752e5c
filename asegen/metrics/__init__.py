"""Every number that the papers report on sets of generated crystals."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Imported when first used: pymatgen and torch take seconds.
_HOMES = {
    "Cache": "cache",
    "CrystalSet": "crystalset",
    "Evaluation": "evaluation",
    "coverage": "sets",
    "crystal_set": "crystalset",
    "distributions": "properties",
    "diversity": "sets",
    "evaluate": "evaluation",
    "fingerprints": "fingerprinting",
    "frechet": "sets",
    "match": "matching",
    "novelty": "duplicates",
    "space_groups": "properties",
    "sun": "stable",
    "uniqueness": "duplicates",
    "validity": "structural",
}

__all__ = [
    "Cache",
    "CrystalSet",
    "Evaluation",
    "coverage",
    "crystal_set",
    "distributions",
    "diversity",
    "evaluate",
    "fingerprints",
    "frechet",
    "match",
    "novelty",
    "space_groups",
    "sun",
    "uniqueness",
    "validity",
]

if TYPE_CHECKING:
    from .cache import Cache
    from .crystalset import CrystalSet, crystal_set
    from .duplicates import novelty, uniqueness
    from .evaluation import Evaluation, evaluate
    from .fingerprinting import fingerprints
    from .matching import match
    from .properties import distributions, space_groups
    from .sets import coverage, diversity, frechet
    from .stable import sun
    from .structural import validity


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
