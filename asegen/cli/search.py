"""`asegen search`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak


def search(
    formula: Annotated[str, typer.Argument(help="Content of the cell, as written: SrTiO3 has five atoms.")],
    n: Annotated[int, typer.Option("--number", "-n", help="Starts.")] = 20,
    method: Annotated[str, typer.Option(help="Where the starts come from: random (AIRSS-like), score, prototypes.")] = "random",
    units: Annotated[int, typer.Option(help="Formula units in the cell.")] = 1,
    symmetric_share: Annotated[float, typer.Option(help="Share of the random starts that have a space group, 0 to 1.")] = 0.5,
    volumes: Annotated[tuple[float, float], typer.Option(help="Of random starts, over the estimate from radii.")] = (0.4, 1.2),
    potential: Annotated[str, typer.Option(help="7net-0, 7net-l3i5, chgnet.")] = "7net-0",
    checkpoint: Annotated[str, typer.Option(help="Of the models; packaged name or file.")] = "default",
    seed: Annotated[int, typer.Option(help="The same seed gives the same starts.")] = 0,
    fmax: Annotated[float, typer.Option(help="Largest force left, eV/Å.")] = 0.005,
    smax: Annotated[float, typer.Option(help="Largest stress left, GPa.")] = 0.02,
    steps: Annotated[int, typer.Option(help="Calls of the potential for one start at most.")] = 300,
    time_limit: Annotated[float, typer.Option(help="Seconds for one start.")] = 600.0,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the results; a killed run, or a larger -n, goes on from it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; without --out no file is written.")] = False,
) -> None:
    """Search for the structures of a formula: many starts, relaxed, and how often each structure was found."""

    def command() -> None:
        options: dict[str, Any] = {
            "units": units,
            "symmetric_share": symmetric_share,
            "volumes": volumes,
            "potential": potential,
            "checkpoint": checkpoint,
            "seed": seed,
            "fmax": fmax,
            "smax": smax,
            "steps": steps,
            "seconds": time_limit,
            "processes": processes,
            "overwrite": overwrite,
        }
        _run(formula, n, method, out, json_, options)

    speak(command, less="fewer --processes")


def _run(formula: str, n: int, method: str, out: Path | None, as_json: bool, options: dict[str, Any]) -> None:
    import json

    from rich.console import Console
    from rich.table import Table

    from ..stability.search import search as run
    from .tables import bar

    if out is None and not as_json:
        out = Path("searched") / "".join(c for c in f"{formula}x{options['units']}-{method}" if c.isalnum() or c == "-")
    with bar("searching") as advance:
        found = run(formula, n, method, out=out, progress=advance, **options)
    if as_json:
        print(json.dumps(found.to_dict(), indent=1))
        return
    console = Console()
    title = (
        f"{found.formula}: {len(found.structures)} structures from {found.n} {method} starts, {100 * found.converged:.0f} % of them "
        f"converged, {found.calls} calls of {found.potential} (energies: {found.scale})"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("#", "eV/atom", "above best", "group", "Å³/atom", "times", "seed"):
        table.add_column(heading, justify="right")
    for number, row in enumerate(found.to_dict()["structures"][:_MOST], start=1):
        numbers = (f"{row['energy_per_atom']:.4f}", f"{row['above_best']:.4f}", str(row["spacegroup"]), f"{row['volume_per_atom']:.2f}")
        table.add_row(str(number), *numbers, str(row["times"]), str(row["seed"]))
    console.print(table)
    if len(found.structures) > _MOST:
        console.print(f"… and {len(found.structures) - _MOST} more")
    reasons: dict[str, int] = {}
    for start in found.rows:
        if not start["converged"]:
            reasons[start["reason"]] = reasons.get(start["reason"], 0) + 1
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1])[:5]:
        console.print(f"{count} × {reason}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"{out}/structures.extxyz   lowest energy first: [bold]ase gui[/bold]", highlight=False, soft_wrap=True)
    console.print(f"{out}/results.jsonl       a line for each start", highlight=False, soft_wrap=True)


_MOST = 30
