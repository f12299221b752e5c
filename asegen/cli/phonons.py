"""`asegen phonons`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak


def phonons(
    file: Annotated[Path, typer.Argument(help="Crystals: CIF, POSCAR, extxyz, CSV with a cif column, folder, …")],
    potential: Annotated[str, typer.Option(help="7net-0, 7net-l3i5, chgnet (needs --rough).")] = "7net-0",
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Relax first, keeping the symmetry.")] = True,
    fix: Annotated[bool, typer.Option("--fix", help="Follow imaginary modes until the crystal is stable.")] = False,
    at: Annotated[Optional[str], typer.Option(help="With --fix: first the modes at this special point, such as R.")] = None,
    rounds: Annotated[int, typer.Option(help="With --fix: most rounds.", min=1)] = 4,
    min_length: Annotated[float, typer.Option(help="Shortest vector of the supercell, Å.")] = 7.5,
    supercell: Annotated[Optional[str], typer.Option(help="Multiples of the conventional cell, such as 2,2,2.")] = None,
    displacement: Annotated[float, typer.Option(help="Of the finite differences, Å.")] = 0.01,
    mesh: Annotated[float, typer.Option(help="Points as fine as those of a supercell of so many Å.")] = 40.0,
    tolerance: Annotated[float, typer.Option(help="Frequencies above minus so many THz count as zero.")] = 0.1,
    symprec: Annotated[float, typer.Option(help="Symmetry within so many Å is taken as exact.")] = 0.01,
    max_atoms: Annotated[int, typer.Option(help="Larger supercells are refused.")] = 400,
    rough: Annotated[bool, typer.Option("--rough", help="Allow a potential whose forces are too rough.")] = False,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda; default: a GPU if there is one.")] = None,
    processes: Annotated[Optional[int], typer.Option(help="Processes for the forces; default: this one.", min=1)] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for pictures, numbers, phonopy's file; a killed run goes on from it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each crystal.")] = False,
) -> None:
    """Phonons: is a crystal dynamically stable, and if not, what does it become?"""

    def command() -> None:
        settings = {
            "min_length": min_length,
            "supercell": _three(supercell),
            "displacement": displacement,
            "mesh": mesh,
            "tolerance": tolerance,
            "symprec": symprec,
            "max_atoms": max_atoms,
            "rough": rough,
            "processes": processes,
        }
        options = {"relax": relax, "fix": fix, "at": at, "rounds": rounds, "settings": settings}
        _run(file, potential, device, options, out, overwrite, json_)

    speak(command, less="a smaller --min-length")


def _three(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        first, second, third = (int(word) for word in text.replace("x", ",").split(","))
    except ValueError:
        raise ValueError(f"--supercell {text!r} is not possible; give three whole numbers such as 2,2,2") from None
    return first, second, third


def _run(file: Path, potential: str, device: str | None, options: dict[str, Any], out: Path | None, overwrite: bool, as_json: bool) -> None:
    import json

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from ..calculators.potentials import potential as a_potential
    from ..datasets.readers import read_rows
    from ..errors import StabilityError
    from ..stability.phonon_runs import Study, study

    if options["at"] is not None and not options["fix"]:
        raise StabilityError("--at says which modes to follow; it needs --fix")
    torch.set_num_threads(1)  # a second thread gains nothing
    plan = Study(a_potential(potential, device=device), **options)
    if not (plan.model.smooth or plan.settings["rough"]):
        from ..stability.phonons import rough_reason

        raise StabilityError(rough_reason(plan.model))
    if out is not None and out.exists() and not out.is_dir():
        raise StabilityError(f"{out} is a file, not a folder to write results to")
    err, console = Console(stderr=True), Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    records = []
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("loading", total=None)
        for record in study(
            read_rows(file), plan, out, overwrite, lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        ):
            records.append(record)
            for line in [] if as_json else _lines(record):
                console.print(line, highlight=False, soft_wrap=True, markup=False)
    if not records:
        raise StabilityError(f"{file} holds no crystals")
    if as_json:
        print(json.dumps(records, indent=1))
    good = any("stable" in record for record in records)
    if out is not None and good:
        err.print(f"wrote {out}", highlight=False)
    if not good:
        raise typer.Exit(1)


def _lines(record: dict[str, Any]) -> list[str]:
    """What a person reads about a crystal."""
    if "stable" not in record:
        return [f"{record['name']}: no phonons: {record['reason']}"]
    lines = [f"{record['name']}: {_verdict(record)}", *(f"  {_mode(mode)}" for mode in record["imaginary"])]
    if record["thermal"] is not None:
        heat = record["thermal"]
        lines.append(
            f"  zero-point energy {1000 * heat['zero_point_energy']:.1f} meV/atom; heat capacity {heat['heat_capacity']:.2f} k_B/atom"
            f" at {heat['temperature']:g} K"
        )
    lines += [f"  note: {warning}" for warning in record["warnings"]]
    fixed = record.get("fixed")
    if fixed is not None:
        for step in fixed["steps"]:
            where = step["q_label"] or "/".join(f"{x:.3g}" for x in step["q_point"])
            others = ", ".join(f"{o['symbol']} {1000 * o['gain']:.2f}" for o in step["others"])
            lines.append(
                f"  followed {step['frequency']:.2f} THz at {where}: {step['symbol']} ({step['spacegroup']}),"
                f" {1000 * step['gain']:.2f} meV/atom lower{f' (others: {others})' if others else ''}"
            )
        lines.append(f"  now {_verdict(fixed)}{'; ' + fixed['reason'] if fixed['reason'] else ''}")
        lines += [f"  note: {warning}" for warning in fixed["warnings"]]
    lines.append(f"  {record['protocol']}")
    return lines


def _verdict(record: dict[str, Any]) -> str:
    word = "stable" if record["stable"] else "unstable"
    where = f"{record['q_label']} ({', '.join(f'{x:.4g}' for x in record['q_point'])})".strip()
    crystal = f"{record['formula']} {record['symbol']} ({record['spacegroup']})"
    return f"{crystal} is {word}, lowest mode {record['min_frequency']:.2f} THz at {where}"


def _mode(mode: dict[str, Any]) -> str:
    where = f"{mode['label']} ({', '.join(f'{x:.4g}' for x in mode['q'])})".strip()
    moves = ", ".join(f"{symbol} {100 * share:.0f} %" for symbol, share in mode["moves"].items() if share >= 0.05)
    return f"{mode['frequency']:.2f} THz at {where}, {mode['degeneracy']}-fold, {mode['star']} in the star; moves {moves}"
