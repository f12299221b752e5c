"""Crystals from CIFs, read by gemmi: symmetry is expanded, partial occupancy refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .rows import PARTIAL, Row, Source, checked_row, reason_of

_SAME = 0.01  # images of an atom closer than this are one atom on a special position, Å


def from_cif(text: str, name: str = "cif", properties: dict[str, float] | None = None) -> Row:
    """One crystal from the text of a CIF; symmetry is expanded, partial occupancy refused."""
    try:
        blocks = _blocks(text)
    except (ValueError, RuntimeError, IndexError) as error:
        return Row(name, error=f"not a CIF: {reason_of(error)}")
    if len(blocks) != 1:
        return Row(name, error=f"CIF with {len(blocks)} structures, expected one")
    return _from_block(blocks[0], name, properties or {})


def cif_rows(source: Source) -> Iterator[Row]:
    """The crystals of a CIF file; one with several blocks gives a row for each that has atoms."""
    try:
        with source.text() as stream:
            text = stream.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        yield Row(source.name, error=f"cannot be read: {error}")
        return
    try:
        blocks = _blocks(text)
    except (ValueError, RuntimeError, IndexError):
        blocks = []
    if len(blocks) < 2:
        yield from_cif(text, source.name)
    for block in blocks if len(blocks) > 1 else []:
        yield _from_block(block, f"{source.name} {block.name}", {})


def _blocks(text: str) -> list[Any]:
    import gemmi

    return [block for block in gemmi.cif.read_string(text) if block.find_values("_atom_site_fract_x")]


def _from_block(block: Any, name: str, properties: dict[str, float]) -> Row:
    import gemmi

    try:
        small = gemmi.make_small_structure_from_block(block)
        cell = np.array(small.cell.orth.mat.tolist()).T
        images = _images(small, cell)
        frac = np.concatenate([np.zeros((0, 3)), *images])
        numbers = np.repeat([_number(site) for site in small.sites], [len(part) for part in images]).astype(np.int64)
    except (ValueError, RuntimeError, IndexError) as error:
        return Row(name, error=f"not a CIF: {reason_of(error)}")
    if any(abs(site.occ - 1.0) > 1e-3 for site in small.sites):
        return Row(name, cell, frac, numbers, properties, error=PARTIAL)
    return checked_row(Row(name, cell, frac, numbers, properties))


def _images(small: Any, cell: np.ndarray) -> list[np.ndarray]:
    """Fractional coordinates of every site and its images, each once, shapes (m, 3).

    gemmi's own expansion merges an atom with images of it up to 0.4 Å away; then two atoms that overlap would be one.
    """
    import gemmi

    if small.symops:  # what the file lists counts more than the name of its group
        operations = [(np.array(op.rot) / op.DEN, np.array(op.tran) / op.DEN) for op in map(gemmi.Op, small.symops)]
    else:
        operations = [(np.array(image.mat.tolist()), np.array(image.vec.tolist())) for image in small.cell.images]
    found = []
    for site in small.sites:
        frac = np.array(site.fract.tolist())
        kept = frac[None]
        for rotation, shift in operations:
            image = rotation @ frac + shift
            apart = kept - image
            if not (np.linalg.norm((apart - np.rint(apart)) @ cell, axis=1) < _SAME).any():
                kept = np.vstack([kept, image - np.floor(image)])
        found.append(kept)
    return found


def _number(site: Any) -> int:
    # gemmi knows deuterium, but not tritium
    return site.element.atomic_number or int((site.type_symbol or site.label).rstrip("0123456789+-") == "T")
