"""`asegen screen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak


def screen(
    file: Annotated[Path, typer.Argument(help="Generated crystals: extxyz, CIFs, db, CSV, JSON, tensor files.")],
    potential: Annotated[str, typer.Option(help="7net-0, 7net-l3i5, chgnet (no phonons).")] = "7net-0",
    reference: Annotated[Optional[str], typer.Option(help="Competing phases: a file, mp (online); default: made here.")] = None,
    reference_scale: Annotated[Optional[str], typer.Option(help="Energies of the file: 'PBE(+U)' or MP2020.")] = None,
    no_hull: Annotated[bool, typer.Option("--no-hull", help="Do not compare with competing phases.")] = False,
    effort: Annotated[str, typer.Option(help="For phases that are made: quick, normal, thorough.")] = "normal",
    phonons: Annotated[int, typer.Option(help="Phonons of so many of the best.", min=0)] = 3,
    within: Annotated[float, typer.Option(help="No phonons further above the hull than this, eV/atom.", min=0.0)] = 0.1,
    free: Annotated[bool, typer.Option("--free", help="Let the space groups break in the relaxation.")] = False,
    steps: Annotated[int, typer.Option(help="Calls of the potential for a relaxation, at most.")] = 300,
    time_limit: Annotated[float, typer.Option(help="Seconds for one relaxation.")] = 600.0,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.", min=1)] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the results; a killed run goes on from it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; without --out no file is written.")] = False,
) -> None:
    """Deduplicate, relax, symmetrise, compare with competing phases, phonons of the best."""

    def command() -> None:
        options: dict[str, Any] = {"reference": reference, "hull": not no_hull, "effort": effort, "phonons": phonons, "within": within}
        options |= {"overwrite": overwrite, "processes": processes, "reference_scale": reference_scale}
        options |= {"symmetry": "free" if free else "keep", "steps": steps, "seconds": time_limit}
        _run(file, potential, out, json_, options)

    speak(command, less="fewer --processes")


def _run(file: Path, potential: str, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    import json

    from rich.console import Console

    from ..stability.screening import screen as run
    from .tables import print_rows, stages

    if out is None and not as_json:
        out = Path("screened") / file.stem
    with stages() as tell:
        found = run(file, potential, out=out, progress=tell, **options)
    if as_json:
        print(json.dumps([{**row, "protocol": found.protocol} for row in found.rows], indent=1))
        raise typer.Exit(0 if found.best else 1)
    columns = {
        "above hull": ("e_above_hull", "+.3f"),
        "above lowest": ("above_lowest", ".3f"),
        "group": ("spacegroup", "d"),
        "THz": ("min_frequency", ".2f"),
        "at": ("q_label", ""),
        "phonons": ("vibrations", ""),
        "found": ("found", "d"),
    }
    kinds = [row["status"] for row in found.rows]
    lost = kinds.count("broken") + kinds.count("failed")
    title = f"{len(found.best)} distinct of {len(kinds)} crystals ({kinds.count('duplicate')} repeated, {lost} without result); eV/atom"
    words = {True: "stable", False: "unstable", None: None}
    rows = [{**found.rows[i], "position": i, "vibrations": words[found.rows[i].get("dynamically_stable")]} for i in found.best]
    rows += [{**row, "position": row["id"]} for row in found.rows if row["status"] in ("broken", "failed")]
    print_rows(rows, columns, title)
    if not found.best:
        raise typer.Exit(1)
    console = Console()
    for stage, how in found.protocol.items():
        console.print(f"{stage}: {how}", highlight=False, soft_wrap=True, markup=False)
    for name, what in (
        ("screen.jsonl", "a row for every crystal"),
        ("structures.extxyz", "the distinct ones, best first"),
        ("screen.db", "the same as an ASE database"),
        ("relaxed/, phonons/", "paths, band structures, pictures"),
    ):
        console.print(f"{out}/{name:<20} {what}", highlight=False, soft_wrap=True)
