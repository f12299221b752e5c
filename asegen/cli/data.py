"""`asegen data`: describe, download, convert, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from .speak import speak

# said here once more: importing the writers would make every command start slowly
_FORMATS = ".extxyz, .cif, .csv, .json, .jsonl (also with .gz), .db, .traj, .zip, .pt, .npz; no suffix: a folder of CIFs."
data_app = typer.Typer(help="Training data and files of crystals: describe, download, convert, export.", no_args_is_help=True)


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
        _name_skipped(found["skipped"], console)

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


@data_app.command()
def export(
    sources: Annotated[list[Path], typer.Argument(help="CSV, CIFs, .zip, pymatgen JSON, extxyz, ASE db, eval_*.pt, folders.")],
    out: Annotated[str, typer.Option(help="File, its suffix says the format: " + _FORMATS)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write crystals of any format in another one; what cannot be read is named and left out."""

    def command() -> None:
        from rich.console import Console

        from ..datasets.export import export as export_crystals

        found = export_crystals(list(sources), out, overwrite=overwrite)
        print(f"{out}: {found['count']} crystals")
        console = Console(stderr=True)
        if found["note"]:
            console.print(found["note"], style="yellow", markup=False, soft_wrap=True)
        _name_skipped(found["skipped"], console)

    speak(command)


def _name_skipped(skipped: list[list[str]], console: Any) -> None:
    for name, reason in skipped[:20]:
        console.print(f"  cannot use {name}: {reason}", style="yellow", markup=False)
    if len(skipped) > 20:
        console.print(f"  … and {len(skipped) - 20} more", style="yellow")
