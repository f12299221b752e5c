"""Training data: readers, standard cells, memory-mapped arrays, download."""

from .arrays import CrystalArrays, write_arrays
from .readers import Row, read_rows
from .standardize import standard_primitive

__all__ = ["CrystalArrays", "Row", "read_rows", "standard_primitive", "write_arrays"]
