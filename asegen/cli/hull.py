"""`asegen hull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak


def hull(
    file: Annotated[Path, typer.Argument(help="Crystals: extxyz, CIFs (folder, zip), db, CSV, JSON, POSCAR.")],
    reference: Annotated[
        Optional[str],
        typer.Option(help="Competing phases: CSV or pymatgen's JSON, mp (online, needs MP_API_KEY), none: they are made and relaxed."),
    ] = None,
    reference_scale: Annotated[Optional[str], typer.Option(help="Energies of the file: 'PBE(+U)' or MP2020.")] = None,
    potential: Annotated[str, typer.Option(help="7net-0, 7net-l3i5 or chgnet.")] = "7net-0",
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Relax the crystals first.")] = True,
    fixed_cell: Annotated[bool, typer.Option("--fixed-cell", help="Relax positions only.")] = False,
    energy: Annotated[
        Optional[str], typer.Option(help="Entry of the file with eV per cell, instead of computing it; needs --scale.")
    ] = None,
    scale: Annotated[Optional[str], typer.Option(help="Of --energy: 'PBE(+U)' or MP2020.")] = None,
    stable_below: Annotated[float, typer.Option(help="Stable means at most so far above the hull, eV/atom.")] = 0.05,
    effort: Annotated[str, typer.Option(help="For phases that are made: quick, normal, thorough.")] = "normal",
    out: Annotated[Optional[Path], typer.Option(help="Folder for hull.json, hull.csv, structures.extxyz, pictures.")] = None,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.")] = None,
    cache: Annotated[Optional[Path], typer.Option(help="Folder of phases made before; default: the user's cache folder.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep phases made before.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each crystal.")] = False,
) -> None:
    """How far crystals are above the convex hull of competing phases, and what they fall apart into."""

    def command() -> None:
        from ..errors import StabilityError

        if energy is None and scale is not None:
            raise StabilityError("--scale says on which scale --energy is; there is no --energy")
        known = None if reference is None or reference.lower() == "none" else reference
        if known is None and reference_scale is not None:
            raise StabilityError("--reference-scale says on which scale the energies of --reference are; there is no file")
        options: dict[str, Any] = {
            "relax": relax and energy is None,
            "energies": energy,
            "scale": scale,
            "effort": effort,
            "reference_scale": reference_scale,
            "processes": processes,
        }
        if fixed_cell and options["relax"]:
            options["cell"] = "fixed"
        _run(file, known, potential, options, stable_below, out, cache, no_cache, json_)

    speak(command, "fewer --processes")


def _run(
    file: Path,
    reference: str | None,
    potential: str,
    options: dict[str, Any],
    stable_below: float,
    out: Path | None,
    cache: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    import json

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..calculators.potentials import potential as potential_of
    from ..errors import DataError
    from ..metrics.cache import Cache
    from ..metrics.crystalset import crystal_set
    from ..stability.hull import hull_distance, reference_of

    given = crystal_set(file)
    if not len(given):
        raise DataError(f"{file} holds no crystals")
    model = potential_of(potential) if reference is None else None
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    store = Cache(cache, keep=not no_cache) if reference is None else None
    with Progress(*columns, console=err, transient=True) as bar:
        crystals = bar.add_task("crystals", total=len(given))
        phases = bar.add_task("competing phases", total=None, visible=False)
        made = {"cache": store, "processes": options["processes"], "effort": options.pop("effort")}
        known = reference_of(
            reference,
            model,
            options.pop("reference_scale"),
            **made,
            progress=lambda done, total: bar.update(phases, completed=done, total=total, visible=True),
        )
        results = hull_distance(
            given, potential, known, progress=lambda done, total: bar.update(crystals, completed=done, total=total), **options
        )
    written = _write(results, known, out, stable_below) if out is not None else []
    if store is not None:
        store.close()
    if as_json:
        print(json.dumps([{**result.row(), "stable": result.stable(stable_below)} for result in results], indent=1))
        return
    _print(results, stable_below, Console())
    for line in written:
        err.print(line, highlight=False, markup=False, soft_wrap=True)


def _print(results: list[Any], stable_below: float, console: Any) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("crystal", "formula", "above hull", "formation", "stable", "falls apart into, or why not judged"):
        table.add_column(name, justify="right" if name in ("above hull", "formation") else "left", overflow="fold")
    for result in sorted(results, key=lambda result: float("inf") if result.e_above_hull is None else result.e_above_hull):
        parts = " + ".join(f"{part.fraction:.2f} {part.formula}" for part in result.decomposition)
        if not result.ok:
            table.add_row(result.name, result.formula, "-", "-", "-", result.reason)
            continue
        stable = "yes" if result.stable(stable_below) else "no"
        text = f"{parts}; {result.warning}" if result.warning else parts
        table.add_row(result.name, result.formula, f"{result.e_above_hull:+.4f}", f"{result.formation_energy_per_atom:+.4f}", stable, text)
    console.print(table)
    judged = [result for result in results if result.ok]
    stable_ones = sum(bool(result.stable(stable_below)) for result in judged)
    lines = [
        f"{stable_ones} of {len(results)} at most {stable_below:g} eV/atom above the hull; {len(results) - len(judged)} not judged; eV/atom"
    ]
    lines += dict.fromkeys(result.protocol for result in judged)
    missing = list(dict.fromkeys(reason for result in judged for reason in result.missing))
    lines += [f"missing or rough: {reason}" for reason in missing[:12]]
    lines += [f"… and {len(missing) - 12} more (--json names all)"] if len(missing) > 12 else []
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _write(results: list[Any], reference: Any, folder: Path, stable_below: float) -> list[str]:
    """Files of a run, and a line about each."""
    import csv
    import io
    import json

    import ase.io

    from ..checkpoint import replacing

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "hull.json") as stream:
        rows = [{**result.row(), "stable": result.stable(stable_below)} for result in results]
        stream.write((json.dumps(rows, indent=1) + "\n").encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("name", "formula", "e_above_hull", "formation_energy_per_atom", "energy_per_atom", "scale", "warning", "reason")
    writer.writerow((*columns, "decomposition"))
    for result in results:
        parts = " + ".join(f"{part.fraction:.4f} {part.formula}" for part in result.decomposition)
        writer.writerow([*("" if getattr(result, c) is None else getattr(result, c) for c in columns), parts])
    with replacing(folder / "hull.csv") as stream:
        stream.write(text.getvalue().encode())
    crystals = []
    for result in results:
        if result.ok:
            atoms = result.atoms.copy()
            atoms.info.update(material_id=result.name, e_above_hull=result.e_above_hull)
            atoms.info.update(formation_energy_per_atom=result.formation_energy_per_atom, decomposition=json.dumps(_parts(result)))
            crystals.append(atoms)
    frames = io.StringIO()
    ase.io.write(frames, crystals, format="extxyz")
    with replacing(folder / "structures.extxyz") as stream:
        stream.write(frames.getvalue().encode())
    written = [f"wrote {folder / name}" for name in ("hull.json", "hull.csv", "structures.extxyz")]
    return written + _draw(results, reference, folder, stable_below)


def _parts(result: Any) -> dict[str, float]:
    return {part.formula: round(part.fraction, 6) for part in result.decomposition}


def _draw(results: list[Any], reference: Any, folder: Path, stable_below: float) -> list[str]:
    """A picture for each system of two or three elements that is not part of a larger one drawn."""
    from ..stability.entries import fractions_of
    from ..stability.hull import Hull
    from ..stability.hull_plots import plot_hull
    from ..stability.scales import common_scale

    systems = {frozenset(fractions_of(result.formula)) for result in results if result.ok}
    drawn = [elements for elements in systems if len(elements) in (2, 3)]
    drawn = [elements for elements in drawn if not any(elements < other for other in drawn)]
    lines = []
    for elements in sorted(drawn, key=sorted):
        path = folder / f"hull_{'-'.join(sorted(elements))}.png"
        made = Hull(reference.phases(elements), elements, common_scale(reference.scale))
        plot_hull(made, results, path, stable_below)
        lines.append(f"wrote {path}")
    if many := sorted("-".join(sorted(elements)) for elements in systems if len(elements) > 3):
        lines.append(f"hulls of more than three elements are not drawn: {', '.join(many)}")
    return lines
