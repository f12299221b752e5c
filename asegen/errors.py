"""Errors that asegen raises on purpose; each message says what was wrong and what to do."""

from __future__ import annotations

from ase.calculators.calculator import PropertyNotImplementedError


class AsegenError(Exception):
    """Base of all errors that asegen raises on purpose."""


class FormulaError(AsegenError, ValueError):
    """A chemical formula that cannot be read, or that asks for something impossible."""


class CrystalError(AsegenError, ValueError):
    """A structure that is not a crystal: no atoms, no volume, not periodic."""


class CheckpointError(AsegenError):
    """A checkpoint that is missing, damaged, or not one of ours."""


class DataError(AsegenError):
    """Training data that cannot be read."""


class FingerprintError(AsegenError, ValueError):
    """A fingerprint that is not defined for a structure; the message says why."""


class DescriptorError(AsegenError, ValueError):
    """A descriptor with impossible parameters, or one that does not fit the crystal or calculator it is used with."""


class MetricError(AsegenError, ValueError):
    """Numbers that a metric cannot be computed from."""


class RecipeError(AsegenError, ValueError):
    """A training recipe with an unknown or impossible entry."""


class NoEnergyError(AsegenError, PropertyNotImplementedError):
    """An energy was asked of a calculator that has none."""


class PotentialError(AsegenError, ValueError):
    """A potential that does not exist, fails, or is asked for what it does not know."""


class StabilityError(AsegenError, ValueError):
    """A relaxation, hull or phonon calculation that is not possible as asked; the message says why."""


class HandoffError(AsegenError, ValueError):
    """A crystal that another code cannot be given, or a calculation that cannot be read back; the message says why."""


class MissingPackageError(AsegenError, ImportError):
    """An optional package is not installed; the message names the pip command."""
