"""Descriptors of structures: the embedded atom density, its derivatives, and vectors made of it."""

from .ead import EAD, OURS, PAPER

__all__ = ["EAD", "OURS", "PAPER"]
