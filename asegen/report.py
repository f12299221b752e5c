"""What a person looks at after a run: a row of numbers per crystal and a contact sheet."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import spglib
from ase import Atoms
from ase.spacegroup import Spacegroup

from .checkpoint import replacing
from .crystals import CrystalBatch
from .graphs import neighbours
from .pictures import sheet

SYMPREC = 0.1
os.environ.setdefault("SPGLIB_WARNING", "OFF")  # it writes to the terminal of whoever runs a thousand crystals


@dataclass(frozen=True)
class Summary:
    """Numbers that say at a glance whether a crystal is sane."""

    formula: str
    """Formula of the cell."""
    spacegroup: int
    """International number by spglib at symprec 0.1 Å."""
    symbol: str
    """Its Hermann-Mauguin symbol."""
    volume_per_atom: float
    """Å³."""
    shortest_distance: float
    """Shortest distance between two atoms or an atom and its own image, Å."""

    @property
    def valid(self) -> bool:
        """No two atoms closer than 0.5 Å and a volume above 0.1 Å³ (CDVAE's structural validity, own images counted)."""
        return self.shortest_distance > 0.5 and self.volume_per_atom > 0.1


def summarize(atoms: Atoms) -> Summary:
    """Summary of one crystal."""
    number = space_group(atoms)
    symbol = Spacegroup(number).symbol.replace(" ", "") if number else "?"
    return Summary(atoms.get_chemical_formula("metal"), number, symbol, float(atoms.get_volume() / len(atoms)), shortest_distance(atoms))


def space_group(atoms: Atoms, symprec: float = SYMPREC) -> int:
    """International number by spglib; 0 where it finds none (atoms that overlap)."""
    try:
        found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=symprec)
    except spglib.SpglibError:
        found = None
    return int(found.number) if found is not None else 0


def shortest_distance(atoms: Atoms) -> float:
    """Shortest distance in the crystal, own images included, Å."""
    batch = CrystalBatch.from_atoms(atoms)
    shortest_vector = float(atoms.cell.lengths().min())
    graph = neighbours(batch, min(shortest_vector * 1.001, 6.0))
    distances = graph.vectors(batch.frac, batch.cell).norm(dim=-1)
    return float(distances.min()) if len(distances) else shortest_vector


def contact_sheet(crystals: Sequence[Atoms], path: str | Path, most: int = 24, rows: Sequence[Summary] | None = None) -> None:
    """PNG with a picture of each crystal, its formula and space group.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
    path : path
    most : int
        So many of them, the first.
    rows : sequence of Summary, optional
        Of the crystals, if they are known already.
    """
    shown = list(crystals[:most])
    known = [summarize(atoms) for atoms in shown] if rows is None else rows[:most]
    titles = [f"{number}: {row.formula}\n{row.symbol} ({row.spacegroup})" for number, row in enumerate(known)]
    # encoded before the file is opened: a run is far more likely killed here than during one write
    encoded = io.BytesIO()
    sheet(shown, titles).save(encoded, format="png", dpi=(110, 110))
    with replacing(path) as stream:
        stream.write(encoded.getvalue())
