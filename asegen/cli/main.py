"""Entry point of `asegen`. Imports nothing heavy before a command runs, so that ``--help`` answers at once."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated, Optional

import typer

from .data import data_app
from .export import collect, export
from .hull import hull
from .phonons import phonons
from .relax import relax
from .screen import screen
from .search import search
from .speak import speak

app = typer.Typer(
    help="Generate crystal structures with score models that are ASE calculators.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


def _version(asked: bool) -> None:
    if asked:
        from asegen import __version__

        typer.echo(f"asegen {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


@app.command()
def generate(
    formula: Annotated[Optional[list[str]], typer.Argument(help="Formulas such as SrTiO3; none: elements are generated too.")] = None,
    n: Annotated[int, typer.Option("-n", "--number", help="Crystals per formula (and per entry of --units).")] = 1,
    units: Annotated[Optional[str], typer.Option(help="Only cells of so many formula units, such as 1 or 1,2,4; default: any.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same crystals.")] = 0,
    order: Annotated[str, typer.Option(help="stable: what forms; likely: what a database of such crystals holds.")] = "stable",
    start: Annotated[Optional[str], typer.Option(help="prototypes, random; default: prototypes where there is a formula.")] = None,
    spacegroup: Annotated[Optional[str], typer.Option(help="Group of all crystals: a number or a symbol.")] = None,
    sites: Annotated[Optional[str], typer.Option(help="Wyckoff positions, 'Fe:4c,4a O:8d'; needs --spacegroup.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Other crystals than those the training data hold.")] = False,
    diversity: Annotated[float, typer.Option(help="0: by probability; 1: like candidates only at the end.")] = 0.5,
    refine: Annotated[float, typer.Option(help="Blur prototypes by so many Å and let the score model sharpen them.")] = 0.0,
    out: Annotated[Optional[Path], typer.Option(help="Folder for the results; a killed run goes on from it.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Packaged name or file.")] = "default",
    prototypes: Annotated[Optional[str], typer.Option(help="Prototype model: packaged name or file; default: the checkpoint's.")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Steps down the noise levels; default: the checkpoint's.")] = None,
    device: Annotated[Optional[str], typer.Option(help="cpu, cuda; default: a GPU if there is one.")] = None,
    batch_size: Annotated[Optional[int], typer.Option(help="Crystals at once; default: from the free memory.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; without --out no file is written.")] = False,
    system: Annotated[str, typer.Option(help="diffusion, or structrepdiff: descriptors first, then positions.")] = "diffusion",
    relax_: Annotated[bool, typer.Option("--relax", help="Relax them and list the polymorphs by log p - E/τ.")] = False,
    potential: Annotated[str, typer.Option(help="For --relax: 7net-0, 7net-l3i5, chgnet.")] = "7net-0",
    processes: Annotated[Optional[int], typer.Option(help="For --relax; default: one per core.", min=1)] = None,
) -> None:
    """Generate crystals of formulas, or of anything (no formula)."""

    def command() -> None:
        from .generate import Options, check_system, run_generate

        if check_system(system, formula, units, [start, spacegroup, sites, new, refine, prototypes, relax_]) == "structrepdiff":
            from .structrep import run_structrep

            run_structrep(n, seed, out, checkpoint, steps, device, batch_size, overwrite, json_)
            return
        options = Options(order, start, spacegroup, sites, new, diversity, refine, prototypes)
        chosen = (device, batch_size, overwrite, json_, options, potential if relax_ else None, processes)
        run_generate(formula or None, n, units, seed, out, checkpoint, steps, *chosen)

    speak(command)


# in the order in which they are used
for _command in (relax, hull, phonons, screen, search, export, collect):
    app.command()(_command)


@app.command()
def prototypes(
    formula: Annotated[str, typer.Argument(help="Such as SrTiO3.")],
    n: Annotated[int, typer.Option("-n", "--number", help="At most so many.")] = 10,
    units: Annotated[Optional[str], typer.Option(help="Only cells of so many formula units, such as 1 or 1,2,4; default: any.")] = None,
    order: Annotated[str, typer.Option(help="stable: what forms; likely: what a database of such crystals holds.")] = "stable",
    spacegroup: Annotated[Optional[str], typer.Option(help="Only this group: a number or a symbol.")] = None,
    new: Annotated[bool, typer.Option("--new", help="Other crystals than those the training data hold.")] = False,
    diversity: Annotated[float, typer.Option(help="0: by probability; 1: like candidates only at the end.")] = 0.5,
    model: Annotated[str, typer.Option(help="Prototype model: packaged name or file.")] = "default",
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Rank the prototypes that a formula may take."""

    def command() -> None:
        from .prototypes import run_prototypes

        run_prototypes(formula, n, units, order, spacegroup, new, diversity, model, json_)

    speak(command)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="TOML recipe, see data/recipes.")],
    data: Annotated[list[Path], typer.Option(help="Training arrays, or files and folders of crystals.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoint, log, curves; a killed run goes on from it.")],
    validation: Annotated[Optional[list[Path]], typer.Option(help="Validation crystals; default: a twentieth of the data.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, gpu.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes (GPUs) that train together.")] = 1,
    minutes: Annotated[Optional[float], typer.Option(help="Stop after so long; the same command goes on.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew even if --out holds a run.")] = False,
) -> None:
    """Train a checkpoint on your own structures."""

    def command() -> None:
        from .train import run_train

        run_train(recipe, data, out, validation, device, devices, minutes, fresh)

    speak(command)


@app.command()
def evaluate(
    file: Annotated[Path, typer.Argument(help="Crystals: extxyz, CIFs (folder, zip), db, CSV, JSON, tensor file of CDVAE or DiffCSP.")],
    reference: Annotated[Optional[Path], typer.Option(help="Test set, for coverage, distributions, Fréchet distance, match.")] = None,
    train: Annotated[Optional[Path], typer.Option(help="Training set, for novelty and S.U.N.")] = None,
    tasks: Annotated[Optional[str], typer.Option(help="Such as validity,coverage; default: all but match that the files allow.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for metrics.json, crystals.csv and pictures.")] = None,
    data_set: Annotated[str, typer.Option(help="mp20, perov-5, carbon-24: coverage cut-offs and energy network.")] = "mp20",
    energy: Annotated[Optional[str], typer.Option(help="Column with eV/atom in both sets, instead of predictions.")] = None,
    e_above_hull: Annotated[Optional[str], typer.Option(help="Column with eV/atom above the hull, for S.U.N.")] = None,
    cutoffs: Annotated[Optional[str], typer.Option(help="Coverage cut-offs such as 0.4,10, instead of those of --data-set.")] = None,
    best_of: Annotated[Optional[int], typer.Option(help="For match: the first so many answers of a row.")] = None,
    samples: Annotated[Optional[int], typer.Option(help="Evaluate only so many crystals, drawn with --seed.")] = None,
    seed: Annotated[int, typer.Option(help="For --samples.")] = 0,
    time_limit: Annotated[float, typer.Option(help="Seconds for one comparison of two crystals.")] = 20.0,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.")] = None,
    cache: Annotated[Optional[Path], typer.Option(help="Folder of earlier results; default: the user's cache folder.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither use nor keep earlier results.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure a set of crystals, whoever generated it: validity, coverage, distances, uniqueness, novelty, match."""

    def command() -> None:
        from .evaluate import run_evaluate

        options = {
            "tasks": None if tasks is None else [task.strip() for task in tasks.split(",") if task.strip()],
            "data_set": data_set,
            "cutoffs": cutoffs,
            "energy": energy,
            "e_above_hull": e_above_hull,
            "best_of": best_of,
            "samples": samples,
            "seed": seed,
            "time_limit": time_limit,
            "processes": processes,
            "cache": cache,
            "keep": not no_cache,
        }
        run_evaluate(file, reference, train, out, json_, options)

    speak(command, less="fewer --processes or --samples")


@app.command()
def reconstruct(
    file: Annotated[Path, typer.Argument(help="Crystals: extxyz, CIF, CSV with a cif column, …")],
    n: Annotated[Optional[int], typer.Option("-n", "--n", "--number", help="Only so many, drawn with --seed.", min=1)] = None,
    descriptor: Annotated[str, typer.Option(help="ours, paper: parameters of the descriptor.")] = "ours",
    pooling: Annotated[str, typer.Option(help="sites, moments, extrema (the paper's).")] = "sites",
    prototypes: Annotated[str, typer.Option(help="Prototype model tried first (a name or file); none: random starts.")] = "default",
    rounds: Annotated[int, typer.Option(help="Most rounds of search for a structure.", min=0)] = 18,
    seed: Annotated[int, typer.Option(help="The same seed gives the same structures.")] = 0,
    time_limit: Annotated[float, typer.Option(help="Seconds after which a structure gets no further round.", min=0.1)] = 90.0,
    processes: Annotated[Optional[int], typer.Option(help="Default: one per core.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder for structures.extxyz; a killed run goes on from it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Turn structures into descriptors and back, and measure how many come back right."""

    def command() -> None:
        from .reconstruct import run_reconstruct

        options = {
            "descriptor": descriptor,
            "pooling": pooling,
            "prototypes": None if prototypes == "none" else prototypes,
            "rounds": rounds,
            "seed": seed,
            "time_limit": time_limit,
            "processes": processes,
            "overwrite": overwrite,
        }
        run_reconstruct(file, n, out, json_, options)

    speak(command)


@app.command()
def info(
    checkpoint: Annotated[Optional[str], typer.Argument(help="Packaged name or file; none: list what is packaged.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the whole header as JSON.")] = False,
) -> None:
    """What a checkpoint is: model, data, licence, measured quality."""

    def command() -> None:
        from .info import run_info

        run_info(checkpoint, json_)

    speak(command)


def main() -> None:
    """Run `asegen`."""
    # Imports and tables make a million objects that stay, and looking through all of them again and again for garbage takes a
    # fifth of a short run. Young objects are looked through as often as usual.
    gc.set_threshold(700, 10, 100)
    app()


if __name__ == "__main__":
    main()
