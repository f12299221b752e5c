"""`asegen generate`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ..calculators import ScoreCalculator
from ..checkpoint import load_checkpoint
from ..devices import resolve_device
from ..dynamics import AnnealedLangevin, Walk
from ..dynamics.annealed import make_walk
from ..errors import FormulaError
from ..generation import file_name, generate, make_starts
from ..report import Summary, contact_sheet, summarize
from ..store import RunFolder


def run_generate(
    formula: list[str] | None,
    n: int,
    units: str,
    seed: int,
    out: Path | None,
    checkpoint: str,
    steps: int | None,
    device: str | None,
    batch_size: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Generate, write files, print a table or JSON."""
    counts = read_units(units)
    loaded = load_checkpoint(checkpoint, resolve_device(device))
    # refuse bad requests before a folder is made
    make_starts(loaded, formula, n, counts, seed)
    make_walk(None, Walk.of(loaded.walk_defaults), steps)
    if out is None and not as_json:
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(formula or ["free"])).strip("-")
        out = Path("generated") / f"{name[:60]}-seed{seed}"
    folder = None
    if out is not None:
        request = {"formula": formula, "n": n, "units": counts, "seed": seed, "checkpoint": loaded.hash, "steps": steps}
        folder = RunFolder(out, request, overwrite)
    crystals = generate(
        formula,
        n,
        counts,
        seed,
        checkpoint=loaded,
        steps=steps,
        device=device,
        batch_size=batch_size,
        progress=not as_json,
        on_batch=folder.add if folder is not None else None,
        done=folder.done() if folder is not None else None,
    )
    rows = [summarize(atoms) for atoms in crystals]
    if folder is not None:
        _write(folder, crystals, loaded, steps, device, make_starts(loaded, formula, n, counts, seed)[0])
    if as_json:
        entries = [_entry(atoms, row) for atoms, row in zip(crystals, rows, strict=True)]
        result: dict[str, Any] = {"checkpoint": loaded.name, "checkpoint_hash": loaded.hash, "seed": seed, "crystals": entries}
        result["out"] = str(out) if out is not None else None
        print(json.dumps(result, indent=1))
        return
    print_table(rows, f"{len(crystals)} crystals from checkpoint '{loaded.name}', seed {seed}")
    console = Console()
    console.print(f"{out}/structures.extxyz   all of them: [bold]ase gui {out}/structures.extxyz[/bold]")
    console.print(f"{out}/cif/               one file each")
    console.print(f"{out}/generation.traj    how number 0 came about: [bold]ase gui {out}/generation.traj[/bold]")
    console.print(f"{out}/crystals.png       a picture of each")


def read_units(text: str) -> list[int]:
    """Formula units from text such as ``1,2,4``."""
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise FormulaError(f"--units {text} should be positive whole numbers, such as 1 or 1,2,4")
    return counts


def print_table(rows: list[Summary], title: str) -> None:
    """One row per crystal."""
    table = Table(title=title, title_justify="left")
    for heading, justify in (("#", "right"), ("formula", "left"), ("space group", "left"), ("Å³/atom", "right"), ("shortest/Å", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for number, row in enumerate(rows[:200]):
        cells = (str(number), row.formula, f"{row.symbol} ({row.spacegroup})", f"{row.volume_per_atom:.2f}", f"{row.shortest_distance:.2f}")
        table.add_row(*cells, style="red" if not row.valid else None)
    console = Console()
    console.print(table)
    if len(rows) > 200:
        console.print(f"… and {len(rows) - 200} more")


def _entry(atoms: Atoms, row: Summary) -> dict[str, Any]:
    return {
        "formula": row.formula,
        "spacegroup": row.spacegroup,
        "volume_per_atom": row.volume_per_atom,
        "shortest_distance": row.shortest_distance,
        "valid": row.valid,
        "seed": atoms.info["seed"],
        "cell": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions(wrap=True).tolist(),
    }


def _write(folder: RunFolder, crystals: list[Atoms], loaded: Any, steps: int | None, device: str | None, start: Atoms) -> None:
    cifs = folder.folder / "cif"
    cifs.mkdir(exist_ok=True)
    for number, atoms in enumerate(crystals):
        target = cifs / f"{file_name(atoms, number)}.cif"
        unfinished = target.with_suffix(".tmp")
        try:
            ase.io.write(unfinished, atoms, format="cif")
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    contact_sheet(crystals, folder.folder / "crystals.png")
    start.calc = ScoreCalculator(loaded, device=device)
    unfinished = folder.folder / ".generation.traj"
    AnnealedLangevin(start, steps=steps, trajectory=unfinished).run()
    unfinished.replace(folder.folder / "generation.traj")
    folder.finish(crystals)
