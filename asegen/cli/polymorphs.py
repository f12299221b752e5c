"""`asegen generate --relax`: what the generated crystals relax to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ..report import space_group
from ..stability.files import relax_file, write_extxyz
from ..stability.polymorphs import SOFTNESS, Polymorph, polymorphs
from ..stability.relax import Relaxed
from .tables import bar

_NAMES = (
    *("prototype", "rank", "probability", "known", "e_above_hull", "e_above_hull_source", "handbook", "material_id"),
    *("start", "seed", "checkpoint", "checkpoint_hash"),
)
_LABELS = ("relaxed", "trusted", "reason", "above_lowest", "prior", "probability", "found", "spacegroup", "energy_per_atom")
_STRICT = 0.01  # symprec, Å: that of the polymorphs


def relax_generated(
    crystals: list[Atoms], potential: str, out: Path | None, overwrite: bool, processes: int | None, identity: str | None
) -> tuple[list[Polymorph], list[dict[str, Any]], list[Relaxed | None]]:
    """Relax, merge what is equal, order by probability; with `out` everything is in its folder ``relaxed``.

    Returns
    -------
    found : list of Polymorph
    rows : list of dict
        Of the polymorphs, then of the crystals that have no energy, as they were generated: nothing is lost.
    results : list of Relaxed or None
        One for each of `crystals`.
    """
    folder = None if out is None else out / "relaxed"
    with bar("relaxing") as advance:
        how: dict[str, Any] = {"overwrite": overwrite, "processes": processes, "identity": identity}
        told, results = relax_file(crystals, potential, out=folder, progress=advance, **how)
    place = [i for i, one in enumerate(results) if one is not None]
    found = polymorphs([one for one in results if one is not None])
    rows = [_row(one, number, place) for number, one in enumerate(found)]
    atoms = [one.atoms for one in found]
    for i, one in enumerate(results):
        if one is None or one.energy_per_atom is None:
            rows.append(_unrelaxed(crystals[i], one, len(rows), i, told[i].get("reason")))
            bare = crystals[i].copy()
            bare.calc = None
            atoms.append(bare)
    if out is not None:
        write_extxyz(out / "polymorphs.extxyz", [_labelled(one, row) for one, row in zip(atoms, rows, strict=True)])
    return found, rows, results


def print_polymorphs(found: list[Polymorph], rows: list[dict[str, Any]], results: list[Relaxed | None], out: Path | None) -> None:
    """A table of the distinct structures, the most probable first."""
    from ..symmetry.groups import space_group as group_of

    used = next((one for one in results if one is not None), None)
    console = Console()
    title = f"{len(found)} polymorphs" if len(found) != 1 else "1 polymorph"
    if used is not None:
        title += f", energies of {used.potential} ({used.scale})"
    table = Table(title=title, title_justify="left")
    for heading in ("#", "formula", "meV/atom", "probability", "space group"):
        justify: Any = "left" if heading in ("formula", "space group") else "right"
        table.add_column(heading, justify=justify, no_wrap=True, min_width=len(heading))
    table.add_column("began as")
    for row in rows:
        number = row["spacegroup"]
        cells = (
            str(row["position"]),
            row["formula"],
            "-" if row["above_lowest"] is None else f"{1000 * row['above_lowest']:.1f}",
            "-" if row["probability"] is None else f"{row['probability']:.3f}",
            f"{group_of(number).symbol} ({number})" if number else "?",
        )
        # a long prototype may be cut, a reason may not
        began = [Text(str(row.get("prototype", "-")), no_wrap=True, overflow="ellipsis")]
        if row["found"] > 1:
            began.append(Text(f"and {row['found'] - 1} more"))
        if row["reason"]:
            began.append(Text(row["reason"]))
        table.add_row(*cells, Group(*began), style=None if row["trusted"] else "red" if row["relaxed"] else "dim")
    console.print(table)
    for line in remarks(rows):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if out is not None:
        console.print(f"{out}/polymorphs.extxyz   these structures: [bold]ase gui {out}/polymorphs.extxyz[/bold]", soft_wrap=True)
        console.print(f"{out}/relaxed/            every relaxation with its path", highlight=False, soft_wrap=True)


def remarks(rows: list[dict[str, Any]]) -> list[str]:
    """What a user should know about the order, a sentence each."""
    there = [row for row in rows if row["relaxed"]]
    doubted = sum(not row["trusted"] for row in there)
    lost = len(rows) - len(there)
    lines = []
    if any(row["prior"] is not None for row in there):
        softness = f"τ = {1000 * SOFTNESS:g} meV/atom"
        lines.append(f"best first by log p - E/τ: probability p of the prototypes, energy E above the lowest, {softness}")
    elif there:
        lines.append("lowest in energy first: these crystals came without probabilities")
    if doubted:
        lines.append(f"{doubted} not trusted, after the others whatever the energy; the reason stands below what it began as")
    if lost:
        lines.append(f"{lost} could not be relaxed and {'stands' if lost == 1 else 'stand'} at the end as generated")
    return lines


def _row(one: Polymorph, number: int, place: list[int]) -> dict[str, Any]:
    return {
        "position": number,
        **_origin(one.relaxed.start),
        **one.relaxed.row(),
        "relaxed": True,
        "trusted": one.trusted,
        "reason": one.reason,
        "spacegroup": one.spacegroup,
        "above_lowest": one.above_lowest,
        "prior": one.prior,
        "probability": one.probability,
        "found": one.found,
        "members": [place[i] for i in one.members],
        **_structure(one.atoms),
    }


def _unrelaxed(crystal: Atoms, one: Relaxed | None, number: int, member: int, reason: str | None) -> dict[str, Any]:
    """The row of a crystal without an energy: refused, stopped on the way, or lost with its process."""
    origin = _origin(crystal)
    nothing = ("energy", "energy_per_atom", "energy_gain", "fmax", "smax", "displacement", "volume_change", "above_lowest")
    return {
        "position": number,
        **origin,
        "formula": crystal.get_chemical_formula("metal"),
        **(one.row() if one is not None else {"converged": False}),
        **dict.fromkeys(nothing),
        "relaxed": False,
        "trusted": False,
        "reason": reason or "not relaxed",
        "spacegroup": space_group(crystal, _STRICT),
        "prior": origin.get("probability"),
        "probability": None,
        "found": 1,
        "members": [member],
        **_structure(crystal),
    }


def _origin(start: Atoms) -> dict[str, Any]:
    found = {key: start.info[key] for key in _NAMES if key in start.info}
    # crystals of a run that goes on were read by ASE, whose numbers JSON does not know
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in found.items()}


def _structure(atoms: Atoms) -> dict[str, Any]:
    return {
        "cell": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions(wrap=True).tolist(),
    }


def _labelled(atoms: Atoms, row: dict[str, Any]) -> Atoms:
    """The crystal with what its row says in ``info``."""
    for key in _LABELS:
        atoms.info.pop(key, None)
    # the files of the relaxation name crystals by their place where they have no id
    if "material_id" not in row:
        atoms.info.pop("material_id", None)
    atoms.info.update({key: row[key] for key in _LABELS if row[key] is not None})
    return atoms
