"""asegen: generate crystal structures with score models that are ASE calculators.

>>> from asegen import generate
>>> crystals = generate("SrTiO3", n=8, seed=0)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Names are imported when they are first used: `asegen --help` needs neither torch nor ASE.
_HOMES = {
    "AnnealedLangevin": "dynamics",
    "ReverseODE": "dynamics",
    "ScoreFilter": "dynamics",
    "Walk": "dynamics",
    "CrystalBasinHopping": "dynamics",
    "EADCalculator": "calculators",
    "EnergyScoreCalculator": "calculators",
    "ScoreCalculator": "calculators",
    "potential": "calculators",
    "CrystalBatch": "crystals",
    "free_crystal": "generation",
    "generate": "generation",
    "load_checkpoint": "checkpoint",
    "load_prototypes": "prototypes.model",
    "random_crystal": "starts",
    "SpaceGroup": "symmetry",
}

__all__ = [
    "AnnealedLangevin",
    "CrystalBasinHopping",
    "CrystalBatch",
    "EADCalculator",
    "EnergyScoreCalculator",
    "ReverseODE",
    "ScoreCalculator",
    "ScoreFilter",
    "SpaceGroup",
    "Walk",
    "__version__",
    "free_crystal",
    "generate",
    "load_checkpoint",
    "load_prototypes",
    "potential",
    "random_crystal",
]

if TYPE_CHECKING:
    from .calculators import EADCalculator, EnergyScoreCalculator, ScoreCalculator, potential
    from .checkpoint import load_checkpoint
    from .crystals import CrystalBatch
    from .dynamics import AnnealedLangevin, CrystalBasinHopping, ReverseODE, ScoreFilter, Walk
    from .generation import free_crystal, generate
    from .prototypes.model import load_prototypes
    from .starts import random_crystal
    from .symmetry import SpaceGroup


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
