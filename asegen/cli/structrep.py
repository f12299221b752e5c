"""`asegen generate --system structrepdiff` and its part of `asegen info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ..devices import resolve_device
from ..errors import AsegenError
from ..generation import file_name
from ..report import Summary, contact_sheet, summarize
from ..store import RunFolder
from ..structrep.generation import Draws, generate_structrep
from ..structrep.model import load_structrep, packaged_structrep, read_structrep_header
from ..systems.structrepdiff import Sampler


def run_structrep(
    n: int,
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
    from .generate import print_table

    model = load_structrep(checkpoint, resolve_device(device))
    sampler = model.sampler if steps is None else Sampler(steps, model.sampler.churn)
    if n < 1:
        raise AsegenError(f"n = {n}: ask for at least one crystal")
    if out is None and not as_json:
        out = Path("generated") / f"structrepdiff-{model.name}-seed{seed}"
    folder = None
    if out is not None:
        asked = {"system": "structrepdiff", "n": n, "seed": seed, "checkpoint": model.hash, "steps": steps}
        folder = RunFolder(out, asked, overwrite)
    console, draws = Console(stderr=True), Draws()
    with console.status("drawing vectors") as status:
        crystals = generate_structrep(
            n,
            seed,
            checkpoint=model,
            sampler=sampler,
            device=device,
            batch_size=batch_size,
            progress=lambda count, total: status.update(f"{count} of {total} crystals"),
            on_batch=folder.add if folder is not None else None,
            done=folder.done() if folder is not None else None,
            draws=draws,
        )
    rows = [summarize(atoms) for atoms in crystals]
    if folder is not None:
        write_crystals(folder, crystals, rows)
    if as_json:
        entries = [entry_of(atoms, row) for atoms, row in zip(crystals, rows, strict=True)]
        result: dict[str, Any] = {"checkpoint": model.name, "checkpoint_hash": model.hash, "seed": seed, "crystals": entries}
        result |= {"rejected": dict(draws.rejected), "out": str(out) if out is not None else None}
        print(json.dumps(result, indent=1))
        return
    print_table(rows, f"{len(crystals)} crystals from structrepdiff checkpoint '{model.name}', seed {seed}")
    console = Console()
    if draws.crystals:
        console.print(draws.sentence())
    console.print(f"{out}/structures.extxyz   all of them: [bold]ase gui {out}/structures.extxyz[/bold]")
    console.print(f"{out}/cif/               one file each")
    console.print(f"{out}/crystals.png       a picture of each")


def write_crystals(folder: RunFolder, crystals: list[Atoms], rows: list[Summary]) -> None:
    """CIFs, a picture, and the final file."""
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
    contact_sheet(crystals, folder.folder / "crystals.png", rows=rows)
    folder.finish(crystals)


def entry_of(atoms: Atoms, row: Summary) -> dict[str, Any]:
    """One crystal as JSON."""
    told = {key: atoms.info[key] for key in ("seed", "loss", "hops", "failed_hops", "rejected")}
    return {
        **told,
        "formula": row.formula,
        "spacegroup": row.spacegroup,
        "volume_per_atom": row.volume_per_atom,
        "shortest_distance": row.shortest_distance,
        "valid": row.valid,
        "cell": atoms.cell.array.tolist(),
        "species": atoms.get_chemical_symbols(),
        "frac_coords": atoms.get_scaled_positions(wrap=True).tolist(),
    }


def print_structrep_models() -> None:
    """Table of the packaged models."""
    table = Table(title="packaged structrepdiff checkpoints (asegen generate --system structrepdiff)", title_justify="left")
    for heading in ("name", "data", "crystals", "atoms up to", "MB"):
        table.add_column(heading)
    for name, path in packaged_structrep().items():
        data = read_structrep_header(path)["data"]
        table.add_row(name, data["name"], str(data["count"]), str(data["max_atoms"]), f"{path.stat().st_size / 1e6:.1f}")
    Console().print(table)


def print_structrep_model(path: Path, as_json: bool) -> None:
    """The header of a model."""
    header = read_structrep_header(path)
    if as_json:
        print(json.dumps(header, indent=1))
        return
    data, training, ead = header["data"], header["training"], header["vector"]["ead"]
    sampler = header["sampler"]
    options = ", ".join(f"{key} {value}" for key, value in header["network"]["options"].items())
    lines = [
        ("name", header["name"]),
        ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("model", f"structrepdiff, {header['network']['name']} network ({options}), {header['diffusion']['steps']} steps of noise"),
        ("vector", f"EAD of orders {ead['orders']}, {len(ead['radial'])} radial functions, cutoff {ead['cutoff']} Å; composition; cell"),
        ("data", f"{data['name']}: {data['count']} crystals of up to {data['max_atoms']} atoms, {len(data['elements'])} elements"),
        ("licence", data["licence"] or "not stated"),
        ("training", f"{training['steps']} steps on {training['device']}, recipe {training['recipe_hash']}"),
        ("sampling", f"{sampler['evaluations']} evaluations, churn {sampler['churn']}"),
    ]
    console = Console()
    for name, text in lines:
        console.print(f"[bold]{name:9s}[/bold] {text}", highlight=False, soft_wrap=True, markup=True)
    for name, value in header["metrics"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        console.print(f"[bold]measured [/bold] {name}: {value}", highlight=False, soft_wrap=True)
