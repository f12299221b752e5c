"""Whether a crystal is a stack of layers, which PBE holds together too weakly."""

from __future__ import annotations

from ase import Atoms

_CLEAR = 0.5


def is_layered(atoms: Atoms) -> bool:
    """Whether the bonds of a crystal make layers (Larsen et al., Phys. Rev. Materials 3, 034003, 2019, as implemented in ASE)."""
    from ase.geometry.dimensionality import analyze_dimensionality

    bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    try:
        best = analyze_dimensionality(bare)[0]
    except (TypeError, IndexError):  # ASE 3.29 ends so where nothing is bonded: solid helium, atoms far apart
        return False
    return best.dimtype == "2D" and best.score > _CLEAR


__all__ = ["is_layered"]
