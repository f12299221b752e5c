"""`asegen generate --relax`: what the generated crystals relax to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from rich.console import Console
from rich.table import Table

from ..stability.files import relax_file, write_extxyz
from ..stability.polymorphs import Polymorph, polymorphs
from ..stability.relax import Relaxed
from .tables import bar

_NAMES = ("prototype", "rank", "probability", "known", "start", "seed", "checkpoint", "checkpoint_hash")


def relax_generated(
    crystals: list[Atoms], potential: str, out: Path | None, overwrite: bool, processes: int | None, identity: str | None
) -> tuple[list[Polymorph], list[dict[str, Any]], list[Relaxed | None]]:
    """Relax, merge what is equal, order by energy; with `out` everything is in its folder ``relaxed``."""
    folder = None if out is None else out / "relaxed"
    with bar("relaxing") as advance:
        how: dict[str, Any] = {"overwrite": overwrite, "processes": processes, "identity": identity}
        _, results = relax_file(crystals, potential, out=folder, progress=advance, **how)
    found = polymorphs([one for one in results if one is not None])
    rows = [_row(one, number) for number, one in enumerate(found)]
    if out is not None:
        for one, row in zip(found, rows, strict=True):
            one.atoms.info.update({key: row[key] for key in ("above_lowest", "found", "spacegroup", "energy_per_atom")})
        write_extxyz(out / "polymorphs.extxyz", [one.atoms for one in found])
    return found, rows, results


def print_polymorphs(found: list[Polymorph], rows: list[dict[str, Any]], results: list[Relaxed | None], out: Path | None) -> None:
    """A table of the distinct structures, lowest in energy first."""
    from ..symmetry.groups import space_group

    scale = found[0].relaxed.scale if found else "-"
    name = found[0].relaxed.potential if found else "-"
    console = Console()
    table = Table(title=f"{len(found)} polymorphs, energies of {name} ({scale})", title_justify="left")
    for heading in ("#", "formula", "meV/atom", "space group", "Å³/atom", "found"):
        justify: Any = "left" if heading in ("formula", "space group") else "right"
        table.add_column(heading, justify=justify, no_wrap=True, min_width=len(heading) + 1)
    table.add_column("began as", no_wrap=True, overflow="ellipsis")
    for number, (one, row) in enumerate(zip(found, rows, strict=True)):
        group = f"{space_group(one.spacegroup).symbol} ({one.spacegroup})" if one.spacegroup else "?"
        style = None if one.relaxed.converged else "red"
        volume = f"{one.atoms.get_volume() / len(one.atoms):.2f}"
        above = f"{1000 * one.above_lowest:.1f}"
        table.add_row(str(number), one.relaxed.formula, above, group, volume, str(one.found), str(row.get("prototype", "-")), style=style)
    console.print(table)
    for failed in [one for one in results if one is not None and one.reason][:20]:
        console.print(f"{failed.formula}: {failed.reason}", highlight=False, soft_wrap=True, markup=False)
    if out is not None:
        console.print(f"{out}/polymorphs.extxyz   these structures: [bold]ase gui {out}/polymorphs.extxyz[/bold]", soft_wrap=True)
        console.print(f"{out}/relaxed/            every relaxation with its path", highlight=False, soft_wrap=True)


def _row(one: Polymorph, number: int) -> dict[str, Any]:
    start = one.relaxed.start.info
    return {
        "position": number,
        **{key: start[key] for key in _NAMES if key in start},
        **one.relaxed.row(),
        "spacegroup": one.spacegroup,
        "above_lowest": one.above_lowest,
        "found": one.found,
        "members": list(one.members),
        "cell": one.atoms.cell.array.tolist(),
        "species": one.atoms.get_chemical_symbols(),
        "frac_coords": one.atoms.get_scaled_positions(wrap=True).tolist(),
    }
