"""Crystals from vectors (system `structrepdiff`): trained models, and generation from them."""

from .model import StructRepModel, load_structrep, packaged_structrep, read_structrep_header, save_structrep

__all__ = ["StructRepModel", "load_structrep", "packaged_structrep", "read_structrep_header", "save_structrep"]
