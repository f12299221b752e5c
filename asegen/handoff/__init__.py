"""Generated crystals into the input files of other codes (VASP, Quantum ESPRESSO, phonopy, atomate2), and the results back."""

from .collecting import Collected, collect, write_results
from .espresso_run import run_espresso
from .exporting import TARGETS, Export, export
from .phonopy_files import displaced_supercells, read_forces
from .supercells import supercell_for

__all__ = [
    "TARGETS",
    "Collected",
    "Export",
    "collect",
    "displaced_supercells",
    "export",
    "read_forces",
    "run_espresso",
    "supercell_for",
    "write_results",
]
