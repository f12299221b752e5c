"""ASE calculators."""

from .ead import EADCalculator
from .score import EnergyScoreCalculator, ScoreCalculator

__all__ = ["EADCalculator", "EnergyScoreCalculator", "ScoreCalculator"]
