"""`asegen hull`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak

_REQUEST = "asegen-hull.json"
_FILES = (_REQUEST, "hull.json", "hull.csv", "structures.extxyz")


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
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of another request in --out.")] = False,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.", min=1)] = None,
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
        request = "" if out is None else _request(file, known, potential, stable_below, options)
        if out is not None:
            _refuse_full(out, request, overwrite)
        _run(file, known, potential, options, stable_below, out, request, cache, no_cache, json_)

    speak(command, "fewer --processes")


def _run(
    file: Path,
    reference: str | None,
    potential: str,
    options: dict[str, Any],
    stable_below: float,
    out: Path | None,
    request: str,
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
    written = _write(results, known, out, stable_below, request) if out is not None else []
    if store is not None:
        store.close()
    if as_json:
        print(json.dumps([{**result.row(), "stable": result.stable(stable_below)} for result in results], indent=1))
    else:
        _print(results, stable_below, Console())
        for line in written:
            err.print(line, highlight=False, markup=False, soft_wrap=True)
    if not any(result.ok for result in results):
        raise typer.Exit(1)


def _print(results: list[Any], stable_below: float, console: Any) -> None:
    from rich.markup import escape

    from .tables import print_rows

    columns = {"crystal": ("crystal", ""), "above hull": ("above", "+.3f"), "formation": ("formation", "+.3f"), "stable": ("stable", "")}
    rows = []
    for result in sorted(results, key=lambda result: float("inf") if result.e_above_hull is None else result.e_above_hull):
        row: dict[str, Any] = {"position": result.position, "name": result.name, "formula": result.formula, "reason": result.reason}
        row["crystal"] = escape(result.name)
        if result.ok:
            row["above"] = _rounded(result.e_above_hull)
            row["formation"] = _rounded(result.formation_energy_per_atom)
            row["stable"] = "yes" if result.stable(stable_below) else "no"
            row["into"] = " + ".join(f"{part.fraction:.2f} {part.formula}" for part in result.decomposition)
        rows.append(row)
    print_rows(rows, {**columns, "falls apart into": ("into", "")}, "energy above the hull, eV/atom")
    judged = [result for result in results if result.ok]
    stable_ones = sum(bool(result.stable(stable_below)) for result in judged)
    lines = [
        f"{stable_ones} of {len(results)} at most {stable_below:g} eV/atom above the hull; {len(results) - len(judged)} not judged; eV/atom"
    ]
    lines += dict.fromkeys(result.protocol for result in judged)
    warned = [f"{result.position} ({result.name}): {result.warning}" for result in judged if result.warning]
    for sentences, more in ((list(dict.fromkeys(result.few for result in judged if result.few)), "systems"), (warned, "warnings")):
        lines += sentences[:12]
        lines += [f"… and {len(sentences) - 12} more {more} (--json names all)"] if len(sentences) > 12 else []
    missing = list(dict.fromkeys(reason for result in judged for reason in result.missing))
    lines += [f"missing or rough: {reason}" for reason in missing[:12]]
    lines += [f"… and {len(missing) - 12} more (--json names all)"] if len(missing) > 12 else []
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _request(file: Path, reference: str | None, potential: str, stable_below: float, options: dict[str, Any]) -> str:
    """Hash of all that decides the results."""
    import hashlib
    import json

    def content(path: Path) -> Any:
        if path.is_dir():
            return [[str(one.relative_to(path)), content(one)] for one in sorted(path.rglob("*")) if one.is_file()]
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else str(path)

    settings = {key: value for key, value in options.items() if key != "processes"}
    plan = [content(file), None if reference is None else content(Path(reference)), potential.lower(), stable_below, settings]
    return "r" + hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]


def _refuse_full(folder: Path, request: str, overwrite: bool) -> None:
    """Raise where the folder holds what may not be replaced."""
    import json

    from ..errors import StabilityError

    if folder.exists() and not folder.is_dir():
        raise StabilityError(f"{folder} is a file, not a folder to write results to")
    there = [name for name in _FILES if (folder / name).exists()]
    if not there:
        return
    if _REQUEST not in there and "hull.json" not in there:
        raise StabilityError(f"{folder} holds {there[0]}, which is not of asegen hull; give another --out")
    try:
        before = json.loads((folder / _REQUEST).read_text(encoding="utf-8"))["request"]
    except (OSError, ValueError, KeyError, TypeError):
        before = None
    if before != request and not overwrite:
        raise StabilityError(f"{folder} holds the results of other crystals or settings; give another --out, or --overwrite")


def _write(results: list[Any], reference: Any, folder: Path, stable_below: float, request: str) -> list[str]:
    """Files of a run, and a line about each."""
    import csv
    import io
    import json
    import re

    import ase.io

    from ..checkpoint import replacing

    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("hull_*.png"):
        if re.fullmatch(r"hull_[A-Z][a-z]?(-[A-Z][a-z]?){1,2}\.png", path.name):
            path.unlink()  # of the run before
    with replacing(folder / _REQUEST) as stream:
        stream.write((json.dumps({"request": request}) + "\n").encode())
    with replacing(folder / "hull.json") as stream:
        rows = [{**result.row(), "stable": result.stable(stable_below)} for result in results]
        stream.write((json.dumps(rows, indent=1) + "\n").encode())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("position", "name", "formula", "e_above_hull", "formation_energy_per_atom", "energy_per_atom", "scale", "warning", "reason")
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


def _rounded(value: float) -> float:
    return round(value, 3) + 0.0  # never -0.000


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
