"""`asegen relax`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak


def relax(
    file: Annotated[Path, typer.Argument(help="Crystals: extxyz, CIF, POSCAR, db, CSV, JSON, a folder or zip of them.")],
    potential: Annotated[str, typer.Option(help="7net-0, 7net-l3i5, chgnet.")] = "7net-0",
    free: Annotated[bool, typer.Option("--free", help="Let the space group of the start break.")] = False,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Relax the positions only.")] = False,
    fmax: Annotated[float, typer.Option(help="Largest force left, eV/Å.")] = 0.005,
    smax: Annotated[float, typer.Option(help="Largest stress left, GPa.")] = 0.02,
    steps: Annotated[int, typer.Option(help="Calls of the potential at most.")] = 300,
    time_limit: Annotated[float, typer.Option(help="Seconds for one structure.")] = 600.0,
    rattle: Annotated[float, typer.Option(help="Random displacement of the start in Å; needs --free.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of --rattle.")] = 0,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.", min=1)] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the results; a killed run goes on from it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; without --out no file is written.")] = False,
) -> None:
    """Relax crystals with an interatomic potential: energy, space group, how far they moved."""

    def command() -> None:
        settings = {
            "symmetry": "free" if free else "keep",
            "cell": "fixed" if fixed_cell else "free",
            "fmax": fmax,
            "smax": smax,
            "steps": steps,
            "seconds": time_limit,
            "rattle": rattle,
            "seed": seed,
        }
        _run(file, potential, out, overwrite, processes, json_, settings)

    speak(command, less="fewer --processes")


def _run(
    file: Path, potential: str, out: Path | None, overwrite: bool, processes: int | None, as_json: bool, settings: dict[str, Any]
) -> None:
    import json

    from rich.console import Console

    from ..stability.files import relax_file
    from .tables import bar, print_rows

    if out is None and not as_json:
        out = Path("relaxed") / file.stem
    with bar("relaxing") as advance:
        rows, _ = relax_file(
            file, potential, out=out, overwrite=overwrite, processes=processes, progress=advance, path=out is not None, **settings
        )
    if as_json:
        print(json.dumps(rows, indent=1))
        raise typer.Exit(0 if any(row.get("energy") is not None for row in rows) else 1)
    columns = {
        "eV/atom": ("energy_per_atom", ".4f"),
        "gain": ("energy_gain", ".4f"),
        "group": ("spacegroup_before", "d"),
        "→": ("spacegroup", "d"),
        "moved/Å": ("displacement", ".3f"),
        "ΔV": ("volume_change", ".1%"),
        "calls": ("calls", "d"),
    }
    good = sum(bool(row["converged"]) for row in rows)
    ordered = sorted(rows, key=lambda row: (row.get("energy_per_atom") is None, row.get("formula", ""), row.get("energy_per_atom") or 0.0))
    scale = next((row["scale"] for row in rows if "scale" in row), "")
    print_rows(ordered, columns, f"{good} of {len(rows)} relaxed with {potential} (energies: {scale})")
    console = Console()
    if not any(row.get("energy") is not None for row in rows):
        raise typer.Exit(1)
    console.print(f"{out}/structures.extxyz   with energy, forces and stress", highlight=False, soft_wrap=True)
    console.print(f"{out}/paths/              a trajectory each: [bold]ase gui[/bold]", highlight=False, soft_wrap=True)
    console.print(f"{out}/results.jsonl       the numbers, a line for each", highlight=False, soft_wrap=True)
