"""`asegen data`: describe, download, convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak

data_app = typer.Typer(help="Training data: describe, download, convert.", no_args_is_help=True)


@data_app.command()
def describe(
    path: Annotated[Path, typer.Argument(help="Training arrays, or a file or folder of crystals.")],
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count crystals, sizes and elements; name what cannot be read."""

    def command() -> None:
        from ..datasets.describe import describe as describe_data

        found = describe_data(path)
        if json_:
            print(json.dumps(found, indent=1))
            return
        from rich.console import Console

        console = Console()
        plain: dict[str, Any] = {"highlight": False, "soft_wrap": True}
        console.print(
            f"[bold]{path}[/bold]: {found['count']} crystals, {found['atoms']} atoms, {len(found['elements'])} elements", soft_wrap=True
        )
        console.print("atoms per cell: " + "  ".join(f"{size}:{count}" for size, count in found["sizes"].items()), **plain)
        console.print("elements: " + " ".join(f"{element}:{count}" for element, count in found["elements"].items()), **plain)
        low, middle, high = found["volume_per_atom"]
        console.print(f"volume per atom: {middle} Å³ (5–95 %: {low}–{high})", **plain)
        for name, reason in found["skipped"][:20]:
            console.print(f"  cannot use {name}: {reason}", style="yellow", markup=False)
        if len(found["skipped"]) > 20:
            console.print(f"  … and {len(found['skipped']) - 20} more", style="yellow")

    speak(command)


@data_app.command()
def convert(
    sources: Annotated[list[Path], typer.Argument(help="CSV with a cif column, CIFs, extxyz, ASE databases, folders.")],
    out: Annotated[Path, typer.Option(help="Folder for the arrays; must not exist.")],
    max_atoms: Annotated[int, typer.Option(help="Leave larger cells out; 0: none.")] = 0,
    as_given: Annotated[bool, typer.Option("--as-given", help="Keep cells as they are instead of standard primitive ones.")] = False,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.")] = None,
) -> None:
    """Turn files of crystals into training arrays."""

    def command() -> None:
        from rich.console import Console

        from ..datasets.convert import convert as convert_data
        from .train import report_skipped

        console = Console(stderr=True)
        with console.status("reading crystals") as status:
            meta = convert_data(
                list(sources),
                out,
                max_atoms=max_atoms,
                standardize=not as_given,
                processes=processes,
                progress=lambda count: status.update(f"reading crystals: {count}"),
            )
        report_skipped(meta, console)

    speak(command)


@data_app.command()
def download(
    name: Annotated[str, typer.Argument(help="mp-20, perov-5 or carbon-24.")],
    out: Annotated[Path, typer.Option(help="Folder for train.csv, val.csv, test.csv.")],
    source: Annotated[Optional[str], typer.Option(help="Another home of the files (a mirror).")] = None,
) -> None:
    """Download a public data set from its home; the number of rows and columns is checked."""

    def command() -> None:
        from ..datasets.download import download as download_data

        for path, rows in download_data(name, out, source, progress=True).items():
            print(f"{path}  {rows} rows")

    speak(command)
