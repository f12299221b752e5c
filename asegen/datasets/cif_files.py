"""Crystals from CIFs, read by gemmi: symmetry is expanded, partial occupancy refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .rows import PARTIAL, Row, Source, checked_row, reason_of


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
        if any(abs(site.occ - 1.0) > 1e-3 for site in small.sites):
            return Row(name, error=PARTIAL)
        sites = small.get_all_unit_cell_sites()
        cell = np.array(small.cell.orth.mat.tolist()).T
        frac = np.array([site.fract.tolist() for site in sites]).reshape(-1, 3)
        numbers = np.array([_number(site) for site in sites], dtype=np.int64)
    except (ValueError, RuntimeError, IndexError) as error:
        return Row(name, error=f"not a CIF: {reason_of(error)}")
    return checked_row(Row(name, cell, frac, numbers, properties))


def _number(site: Any) -> int:
    # gemmi knows deuterium, but not tritium
    return site.element.atomic_number or int((site.type_symbol or site.label).rstrip("0123456789+-") == "T")
