"""ASE calculators."""

from .ead import EADCalculator
from .potentials import Potential, potential
from .score import EnergyScoreCalculator, ScoreCalculator

__all__ = ["EADCalculator", "EnergyScoreCalculator", "Potential", "ScoreCalculator", "potential"]
