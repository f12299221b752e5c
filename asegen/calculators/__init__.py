"""ASE calculators."""

from .score import EnergyScoreCalculator, ScoreCalculator

__all__ = ["EnergyScoreCalculator", "ScoreCalculator"]
