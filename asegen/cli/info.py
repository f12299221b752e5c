"""`asegen info`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ..checkpoint import packaged, read_header
from ..errors import CheckpointError
from ..prototypes.model import load_prototypes, packaged_prototypes, read_prototypes_header
from ..structrep.model import packaged_structrep, read_structrep_header
from .structrep import print_structrep_model, print_structrep_models


def print_prototype_models() -> None:
    """Table of the packaged prototype models."""
    table = Table(title="packaged prototype models", title_justify="left")
    for heading in ("name", "data", "crystals", "prototypes", "seen once", "MB"):
        table.add_column(heading)
    for name, path in packaged_prototypes().items():
        model = load_prototypes(name)
        data = model.header["data"]
        once = sum(len(p.examples) == 1 for p in model.table.prototypes)
        table.add_row(name, data["name"], str(data["count"]), str(data["prototypes"]), str(once), f"{path.stat().st_size / 1e6:.1f}")
    Console().print(table)


def is_prototype_model(path: Path) -> bool:
    """Whether a file is a prototype model; anything else is left to the reader of checkpoints."""
    try:
        read_prototypes_header(path)
    except CheckpointError:
        return False
    return True


def is_structrep_model(path: Path) -> bool:
    """Whether a file is a structrepdiff model; anything else is left to the reader of checkpoints."""
    try:
        read_structrep_header(path)
    except CheckpointError:
        return False
    return True


def print_prototype_model(path: Path, as_json: bool) -> None:
    """The header of a prototype model."""
    header = read_prototypes_header(path)
    if as_json:
        print(json.dumps(header, indent=1))
        return
    data, training = header["data"], header["training"]
    console = Console()
    lines = [
        ("name", header["name"]),
        ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("model", "prototypes: votes of known compositions, corrected by a graph network on the sites"),
        ("data", f"{data['name']}: {data['prototypes']} prototypes from {data['count']} crystals of up to {data['max_atoms']} atoms"),
        ("licence", data["licence"] or "not stated"),
        ("training", f"{training['seconds']} s, recipe {training['recipe_hash']}"),
    ]
    for name, text in lines:
        console.print(f"[bold]{name:9s}[/bold] {text}", highlight=False, soft_wrap=True)
    for name, value in header["metrics"].items():
        console.print(f"[bold]measured [/bold] {name}: {value}", highlight=False, soft_wrap=True)


def run_info(checkpoint: str | None, as_json: bool) -> None:
    """Print a header, or the list of packaged checkpoints."""
    known = packaged()
    if checkpoint is None:
        headers = {name: read_header(path) for name, path in known.items()}
        if as_json:
            models = {name: read_prototypes_header(path) for name, path in packaged_prototypes().items()}
            vectors = {name: read_structrep_header(path) for name, path in packaged_structrep().items()}
            print(json.dumps({**headers, "prototype models": models, "structrepdiff": vectors}, indent=1))
            return
        table = Table(title="packaged checkpoints", title_justify="left")
        for heading in ("name", "data", "crystals", "atoms up to", "MB"):
            table.add_column(heading)
        for name, header in headers.items():
            data = header["data"]
            size = known[name].stat().st_size / 1e6
            table.add_row(name, data["name"], str(data["count"]), str(data["max_atoms"]), f"{size:.1f}")
        Console().print(table)
        print_prototype_models()
        print_structrep_models()
        return
    # the names of the systems overlap: structrepdiff/perov-5 is the one that is not a score model
    path = known.get(checkpoint) or packaged_structrep().get(checkpoint.removeprefix("structrepdiff/")) or Path(checkpoint)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {checkpoint!r}: neither a file nor one of the packaged names ({', '.join(known) or 'none'})")
    if is_prototype_model(path):
        print_prototype_model(path, as_json)
        return
    if is_structrep_model(path):
        print_structrep_model(path, as_json)
        return
    header = read_header(path)
    if as_json:
        print(json.dumps(header, indent=1))
        return
    data, training = header["data"], header["training"]
    console = Console()
    options = ", ".join(f"{k} {v}" for k, v in header["network"]["options"].items())
    lines = [
        ("name", header["name"]),
        ("file", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("model", f"{header['system']}, {header['network']['name']} network ({options})"),
        ("noise", f"{header['schedule']['sigma_min']} to {header['schedule']['sigma_max']} Å"),
        ("data", f"{data['name']}: {data['count']} crystals of up to {data['max_atoms']} atoms, {len(data['elements'])} elements"),
        ("licence", data["licence"] or "not stated"),
        ("training", f"{training['steps']} steps on {training['device']}, recipe {training['recipe_hash']}"),
        ("sampling", ", ".join(f"{k} {v}" for k, v in header["walk"].items()) or "package defaults"),
    ]
    for name, text in lines:
        console.print(f"[bold]{name:9s}[/bold] {text}", highlight=False, soft_wrap=True)
    for name, value in header["metrics"].items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {number}" for key, number in value.items())
        console.print(f"[bold]measured [/bold] {name}: {value}", highlight=False, soft_wrap=True)
