"""`asegen export` and `asegen collect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from .speak import speak

if TYPE_CHECKING:
    from ..handoff import Collected, Export


# names of the parameters of `export` that only some targets have
_OF_TARGETS = {
    ("vasp",): ("set_", "potcar"),
    ("espresso",): ("calculation", "pseudo_dir", "ecutwfc", "ecutrho", "kspacing", "smearing", "nonmagnetic"),
    ("vasp", "espresso"): ("setting",),
    ("phonopy",): ("calculator", "min_length", "displacement"),
    ("jobflow",): ("flow",),
}


def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Crystals: the folder of a run, extxyz, CIF, CSV, JSON, …")],
    to: Annotated[str, typer.Option(help="vasp, espresso, phonopy, jobflow.")],
    out: Annotated[Optional[Path], typer.Option(help="New folder; default: the file's name and the target.")] = None,
    n: Annotated[Optional[int], typer.Option("-n", "--n", "--number", help="Only the first so many.", min=1)] = None,
    only: Annotated[Optional[str], typer.Option(help="Positions from 0, such as 0,3,7-9.")] = None,
    set_: Annotated[str, typer.Option("--set", help="VASP: mp-relax, mp-scan, matpes-pbe, matpes-r2scan.")] = "mp-relax",
    potcar: Annotated[bool, typer.Option("--potcar", help="VASP: POTCAR from PMG_VASP_PSP_DIR instead of POTCAR.spec.")] = False,
    calculation: Annotated[str, typer.Option(help="Espresso: scf, relax, vc-relax.")] = "vc-relax",
    pseudo_dir: Annotated[Optional[Path], typer.Option(help="Espresso: folder of UPF files; default: ESPRESSO_PSEUDO.")] = None,
    ecutwfc: Annotated[Optional[float], typer.Option(help="Espresso: cut-off, Ry; default: what the pseudopotentials suggest.")] = None,
    ecutrho: Annotated[Optional[float], typer.Option(help="Espresso: the density's cut-off, Ry.")] = None,
    kspacing: Annotated[float, typer.Option(help="Espresso: largest distance of k-points, 1/Å.")] = 0.25,
    smearing: Annotated[str, typer.Option(help="Espresso: cold, gaussian, …; none: fixed occupations.")] = "cold",
    nonmagnetic: Annotated[bool, typer.Option("--nonmagnetic", help="Espresso: no magnetic start of Fe, Co, Ni, …")] = False,
    setting: Annotated[Optional[list[str]], typer.Option(help="INCAR tag or pw.x entry, such as ENCUT=600; may be repeated.")] = None,
    calculator: Annotated[str, typer.Option(help="Phonopy: vasp or espresso.")] = "vasp",
    min_length: Annotated[float, typer.Option(help="Phonopy: length of the supercell, Å.")] = 10.0,
    displacement: Annotated[float, typer.Option(help="Phonopy: Å.")] = 0.01,
    flow: Annotated[str, typer.Option(help="Jobflow: mp-gga, mp-r2scan, mp24, matpes.")] = "mp-gga",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in --out.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write input files for VASP, Quantum ESPRESSO, phonopy or atomate2: a folder for each crystal and a job script."""

    def command() -> None:
        from ..handoff import export as export_crystals

        _refuse_foreign(context, to, calculator)
        settings = _settings(setting or [])
        done = export_crystals(
            file,
            out if out is not None else Path(f"{file.name.partition('.')[0] or 'crystals'}-{to}"),
            to,
            only=None if only is None else _positions(only),
            n=n,
            overwrite=overwrite,
            calculator=calculator,
            min_length=min_length,
            displacement=displacement,
            flow=flow,
            vasp_options={"set": set_, "potcar": potcar, "settings": settings},
            espresso_options={
                "calculation": calculation,
                "pseudo_dir": pseudo_dir,
                "ecutwfc": ecutwfc,
                "ecutrho": ecutrho,
                "kspacing": kspacing,
                "smearing": None if smearing == "none" else smearing,
                "magnetic": not nonmagnetic,
                "settings": settings,
            },
        )
        _say_export(done, json_)

    speak(command, less="fewer crystals (-n)")


def collect(
    folder: Annotated[Path, typer.Argument(help="What `asegen export` wrote, after the codes have run.")],
    out: Annotated[Optional[Path], typer.Option(help="File for the last structures with energies and forces (.extxyz).")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read the results of exported calculations: energies, forces, final structures, and what did not finish."""

    def command() -> None:
        from ..handoff import collect as collect_results
        from ..handoff import write_results

        found = collect_results(folder)
        written = None if out is None else write_results(found, out)
        if json_:
            import json

            print(json.dumps([one.row() for one in found], indent=1))
        else:
            _print_results(found)
        if written is not None:
            typer.echo(f"wrote {out}: {written} structures", err=True)
        if not any(one.finished for one in found):
            raise typer.Exit(1)

    speak(command, less="fewer folders at a time")


def _refuse_foreign(context: typer.Context, to: str, calculator: str) -> None:
    """Raise where an option was given that the target does not have."""
    from ..errors import HandoffError

    ours = {to, calculator} if to == "phonopy" else {to}
    for targets, names in _OF_TARGETS.items():
        if ours.isdisjoint(targets):
            given = [name for name in names if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
            if given:
                option = "--" + given[0].strip("_").replace("_", "-")
                raise HandoffError(f"{option} is an option of {' and '.join(targets)}; --to {to} has none such")


def _positions(text: str) -> list[int]:
    """``0,3,7-9`` as numbers."""
    from ..errors import HandoffError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise HandoffError(f"--only takes positions such as 0,3,7-9, not {text!r}")
        found += range(int(first), int(last) + 1) if dash else [int(first)]
    return found


def _settings(entries: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` entries; values are read as JSON where they are that (numbers, true, lists), else as text."""
    import json

    from ..errors import HandoffError

    found: dict[str, Any] = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not key.strip() or not equals:
            raise HandoffError(f"--setting takes KEY=VALUE, not {entry!r}")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found


def _say_export(done: Export, as_json: bool) -> None:
    import json
    from collections import Counter

    from rich.console import Console

    if as_json:
        entries = {**vars(done), "out": str(done.out), "skipped": [{"name": name, "reason": reason} for name, reason in done.skipped]}
        print(json.dumps(entries, indent=1))
        return
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True, "markup": False}
    console, err = Console(), Console(stderr=True)
    if done.target == "jobflow":
        console.print(f"{done.out / 'flow.json'}: {len(done.names)} flows", **plain)
    else:
        console.print(f"{done.out}: {len(done.names)} crystals, {len(done.runs)} calculations for {done.out / 'job.sh'}", **plain)
    # the same warning of many crystals is said once
    names = {*done.names, *(name for name, _ in done.skipped)}
    parts = [remark.partition(": ") for remark in done.remarks]
    sentences = Counter(sentence if name in names else f"{name}{colon}{sentence}" for name, colon, sentence in parts)
    for sentence, count in sentences.items():
        err.print(f"  {sentence}" + (f" ({count} crystals)" if count > 1 else ""), style="yellow", **plain)
    for _, reason in done.skipped[:20]:
        err.print(f"  left out {reason}", style="yellow", **plain)
    if len(done.skipped) > 20:
        err.print(f"  … and {len(done.skipped) - 20} more", style="yellow", **plain)


def _print_results(found: list[Collected]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("folder", "code", "eV/atom", "max force eV/Å", "state"):
        table.add_column(name, justify="right" if name in ("eV/atom", "max force eV/Å") else "left")
    for one in found:
        energy = "-" if one.energy_per_atom is None else f"{one.energy_per_atom:.5f}"
        force = "-" if one.max_force is None else f"{one.max_force:.4f}"
        table.add_row(one.folder, one.version or one.code, energy, force, "converged" if one.converged else one.reason)
    console = Console()
    console.print(table)
    scales = sorted({one.energy_scale for one in found if one.energy is not None})
    done = sum(one.converged for one in found)
    console.print(f"{done} of {len(found)} converged", highlight=False)
    if len(scales) > 1:
        text = "energies of different scales, not to be compared: " + ", ".join(scales)
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
