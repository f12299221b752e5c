"""`asegen train`."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..datasets.convert import convert
from ..errors import AsegenError, MissingPackageError
from ..training.recipe import Recipe

if TYPE_CHECKING:
    from ..prototypes.fit import PrototypeRecipe
    from ..training.vectors import VectorRecipe


def run_train(
    recipe_path: Path,
    data: list[Path],
    out: Path,
    validation: list[Path] | None,
    device: str,
    devices: int,
    minutes: float | None,
    fresh: bool,
) -> None:
    """Convert the data if need be, train, say where the checkpoint is."""
    if system_of(recipe_path) == "prototypes":
        if validation or device != "auto" or devices != 1 or minutes is not None:
            raise AsegenError(
                "--validation, --device, --devices and --minutes have no meaning for prototype models: they are trained in minutes on the"
                " CPU, every crystal validated by leaving it out"
            )
        train_prototype_model(recipe_path, data, out, fresh)
        return
    if system_of(recipe_path) == "structrepdiff":
        if devices != 1:
            raise AsegenError(f"--devices {devices}: structrepdiff models are trained by one process")
        train_vector_model(recipe_path, data, out, validation, device, minutes, fresh)
        return
    recipe = Recipe.read(recipe_path)
    try:
        from ..training.train import train
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"training needs {error.name}; install it with: pip install 'asegen[train]'") from error
    console = Console(stderr=True)
    arrays = to_arrays(data, out, recipe, console)
    held = to_arrays(validation, out, recipe, console) if validation else None
    try:
        target = train(
            recipe, arrays, out, validation=held, device=device, devices=devices, resume=not fresh, progress=True, max_minutes=minutes
        )
    except Exception as error:
        # Lightning's own words for a device that is not there
        if type(error).__name__ == "MisconfigurationException":
            raise AsegenError(f"cannot train with --device {device} --devices {devices}: {error}") from error
        raise
    console.print(f"[green]{target}[/green]: use it with [bold]asegen generate … --checkpoint {target}[/bold]")


def system_of(recipe_path: Path) -> str:
    """Which kind of model a recipe trains; recipes that cannot be read are left to their readers."""
    try:
        return str(tomllib.loads(recipe_path.read_text(encoding="utf-8")).get("system", "diffusion"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return "diffusion"


def train_prototype_model(recipe_path: Path, data: list[Path], out: Path, fresh: bool) -> None:
    """Train a prototype model; takes minutes and is not resumed."""
    from ..prototypes.fit import PrototypeRecipe, train_prototypes

    recipe = PrototypeRecipe.read(recipe_path)
    console = Console(stderr=True)
    target = out / f"{recipe.name}.safetensors"
    if target.exists() and not fresh:
        raise AsegenError(f"{target} exists; give another --out, or --fresh to train it anew")
    arrays = to_arrays(data, out, recipe, console)
    with console.status("sorting crystals into prototypes") as status:

        def report(line: str) -> None:
            console.print(line, highlight=False)
            status.update(line)

        train_prototypes(recipe, arrays, out, report)
    console.print(f"[green]{target}[/green]: use it with [bold]asegen generate … --prototypes {target}[/bold]")


def train_vector_model(
    recipe_path: Path, data: list[Path], out: Path, validation: list[Path] | None, device: str, minutes: float | None, fresh: bool
) -> None:
    """Train a diffusion of structure vectors."""
    try:
        from ..training.vectors import VectorRecipe, train_vectors
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"training needs {error.name}; install it with: pip install 'asegen[train]'") from error
    recipe = VectorRecipe.read(recipe_path)
    console = Console(stderr=True)
    arrays = to_arrays(data, out, recipe, console)
    held = to_arrays(validation, out, recipe, console) if validation else None
    try:
        target = train_vectors(
            recipe,
            arrays,
            out,
            validation=held,
            device=device,
            resume=not fresh,
            max_minutes=minutes,
            report=lambda line: console.print(line, highlight=False),
        )
    except Exception as error:
        # Lightning's own words for a device that is not there
        if type(error).__name__ == "MisconfigurationException":
            raise AsegenError(f"cannot train with --device {device}: {error}") from error
        raise
    use = f"asegen generate --system structrepdiff --checkpoint {target}"
    console.print(f"[green]{target}[/green]: use it with [bold]{use}[/bold]")


def to_arrays(sources: list[Path], out: Path, recipe: Recipe | PrototypeRecipe | VectorRecipe, console: Console) -> Path:
    """Training arrays of the sources: themselves if they are arrays, else converted once into `out`."""
    if len(sources) == 1 and (sources[0] / "meta.json").is_file():
        return sources[0]
    files = [file for s in sources for file in ([s, *sorted(s.rglob("*"))] if s.is_dir() else [s])]
    signature = [[str(file.resolve()), file.stat().st_mtime_ns if file.exists() else 0] for file in files]
    key = hashlib.sha256(repr((signature, recipe.max_atoms)).encode()).hexdigest()[:12]
    folder = out / f"arrays-{key}"
    if not (folder / "meta.json").is_file():
        with console.status("reading crystals") as status:
            meta = convert(
                list(sources), folder, max_atoms=recipe.max_atoms, progress=lambda count: status.update(f"reading crystals: {count}")
            )
        report_skipped(meta, console)
    return folder


def report_skipped(meta: dict, console: Console) -> None:
    """Say how many rows were used, and name the ones that were not."""
    console.print(
        f"{meta['count']} crystals with {meta['atoms']} atoms; {len(meta['skipped'])} bad rows skipped, {meta['too_large']} too large"
    )
    for name, reason in meta["skipped"][:10]:
        console.print(f"  skipped {name}: {reason}", style="yellow", markup=False)
    if len(meta["skipped"]) > 10:
        console.print(f"  … and {len(meta['skipped']) - 10} more, all named in meta.json", style="yellow")
