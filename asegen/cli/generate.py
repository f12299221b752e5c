"""`asegen generate`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ..calculators import ScoreCalculator
from ..calculators.potentials import potential as known_potential
from ..checkpoint import load_checkpoint
from ..devices import resolve_device
from ..dynamics import AnnealedLangevin, Walk
from ..dynamics.annealed import make_walk
from ..errors import AsegenError, FormulaError
from ..generation import SYSTEMS, file_name, fill, refining_walk, request_of, told
from ..layers import is_layered
from ..prototypes.model import PrototypeModel
from ..report import Summary, contact_sheet, summarize
from ..starts import Start, constrained, make_starts, prototypes_for
from ..store import RunFolder

RANKED = ("rank", "start", "prototype", "probability", "known", "e_above_hull", "e_above_hull_source", "handbook", "material_id")

#: What the mark behind an energy above the hull means.
SOURCES = {
    "published": "as published (PBE, MP2020 corrections)",
    "computed": "* by the potential 7net-0",
    "predicted": "~ predicted from like crystals",
}
_MARKS = {"published": "", "computed": "*", "predicted": "~"}


@dataclass(frozen=True)
class Options:
    """What decides the start of a run, as typed."""

    order: str = "stable"
    start: str | None = None
    spacegroup: str | None = None
    sites: str | None = None
    new: bool = False
    diversity: float = 0.5
    refine: float = 0.0
    prototypes: str | None = None


def check_system(system: str, formula: list[str] | None, units: str | None, others: list[Any]) -> str:
    """The system asked for.

    Raises
    ------
    AsegenError
        An unknown one, or one that cannot do what else was asked.
    """
    if system not in SYSTEMS:
        raise AsegenError(f"no system {system!r}; known are {', '.join(SYSTEMS)}")
    if system == "structrepdiff" and (formula or units is not None or any(others)):
        refused = "formula, units, start, group, prototypes or --relax"
        raise AsegenError(f"--system structrepdiff draws formula and cell itself: it takes no {refused}")
    return system


def run_generate(
    formula: list[str] | None,
    n: int,
    units: str | None,
    seed: int,
    out: Path | None,
    checkpoint: str,
    steps: int | None,
    device: str | None,
    batch_size: int | None,
    overwrite: bool,
    as_json: bool,
    options: Options,
    potential: str | None = None,
    processes: int | None = None,
) -> None:
    """Generate, write files, print a table or JSON; with a potential also relax."""
    counts = None if units is None else read_units(units)
    if potential is not None:
        known_potential(potential)  # refuse a wrong one before anything is generated
    where = resolve_device(device)
    loaded = load_checkpoint(checkpoint, where)
    # refuse bad requests before a folder is made
    chosen = {key: value for key, value in asdict(options).items() if key not in ("refine", "prototypes")}
    request = request_of(formula, n, counts, seed, **chosen)
    model = prototypes_for(loaded, request, options.prototypes)
    starts = make_starts(loaded, request, model)
    walks = {"prototype": refining_walk(loaded, options.refine)}
    full = make_walk(None, Walk.of(loaded.walk_defaults), steps)
    if out is None and not as_json:
        words = [*(formula or ["free" if options.sites is None else options.sites]), *([options.spacegroup] if options.spacegroup else [])]
        name = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")
        out = Path("generated") / f"{name[:60]}-seed{seed}"
    folder = None
    if out is not None:
        asked = {"formula": formula, "n": n, "units": counts, "seed": seed, "checkpoint": loaded.hash, "steps": steps}
        asked |= {**asdict(options), "prototypes": model.hash if model is not None else None}
        folder = RunFolder(out, asked, overwrite)
    crystals, empty = fill(
        loaded,
        starts,
        options.refine,
        steps,
        where,
        batch_size=batch_size,
        progress=not as_json,
        on_batch=folder.add if folder is not None else None,
        done=folder.done() if folder is not None else None,
    )
    if not crystals:
        raise AsegenError(told(empty, len(starts)))
    rows = [summarize(atoms) for atoms in crystals]
    if folder is not None:
        _write(folder, crystals, rows, loaded, starts[0], walks.get(starts[0].kind, full), device)
    relaxed = None
    if potential is not None:
        from .polymorphs import print_polymorphs, relax_generated

        identity = folder.fingerprint if folder is not None else None
        relaxed = relax_generated(crystals, potential, out, overwrite, processes, identity)
    if as_json:
        entries = [_entry(atoms, row) for atoms, row in zip(crystals, rows, strict=True)]
        result: dict[str, Any] = {"checkpoint": loaded.name, "checkpoint_hash": loaded.hash, "seed": seed, "crystals": entries}
        result["prototypes"] = model.name if model is not None else None
        result["empty"] = {str(place): reason for place, reason in empty.items()}
        result["out"] = str(out) if out is not None else None
        if relaxed is not None:
            result["polymorphs"] = relaxed[1]
        print(json.dumps(result, indent=1))
        return
    console = Console()
    if relaxed is not None:
        print_polymorphs(*relaxed, out)
        console.print(f"{out}/structures.extxyz   before the relaxation", highlight=False, soft_wrap=True)
        return
    ranked = any("rank" in atoms.info for atoms in crystals)
    if ranked:
        print_ranking(crystals, rows, f"{len(crystals)} crystals, checkpoint '{loaded.name}', seed {seed}")
    else:
        print_table(rows, f"{len(crystals)} crystals from checkpoint '{loaded.name}', seed {seed}")
    for line in remarks(crystals, model, request.start):
        console.print(line, highlight=False)
    if empty:
        console.print(told(empty, len(starts)), style="yellow", highlight=False, markup=False)
    console.print(f"{out}/structures.extxyz   all of them: [bold]ase gui {out}/structures.extxyz[/bold]")
    console.print(f"{out}/cif/               one file each")
    if (Path(str(out)) / "generation.traj").exists():
        console.print(f"{out}/generation.traj    how number 0 came about: [bold]ase gui {out}/generation.traj[/bold]")
    console.print(f"{out}/crystals.png       a picture of each")


def remarks(crystals: list[Atoms], model: PrototypeModel | None, start: str | None) -> list[str]:
    """What a user should know about where the crystals come from."""
    kinds = [atoms.info.get("start", "random") for atoms in crystals]
    lines = []
    if "prototype" in kinds:
        known = sum(bool(atoms.info.get("known")) for atoms in crystals)
        if known:
            lines.append(f"{known} known, with their own cells (Materials Project, CC BY 4.0); --new leaves them out")
        sources = {atoms.info.get("e_above_hull_source") for atoms in crystals}
        told = [words for source, words in SOURCES.items() if source in sources]
        if told:
            lines.append(f"meV/atom above the convex hull: {'; '.join(told)}")
        lines += handbook_remarks(crystals)
    if "sites" in kinds:
        count = kinds.count("sites")
        lines.append(f"{count} on random sites of a space group, filled by the score model: no known prototype was left for them")
    layered = [number for number, atoms in enumerate(crystals[:20]) if atoms.info.get("known") and is_layered(atoms)]
    if layered:
        which = ", ".join(str(number) for number in layered)
        lines.append(f"layered ({which}): PBE has no dispersion, so the distance between layers is often some percent too long")
    formula_given = any("rank" in atoms.info for atoms in crystals) or start is not None
    if model is None and "random" in kinds and not formula_given and not all("reference_volume" in atoms.info for atoms in crystals):
        lines.append("started from random atoms: no prototype model belongs to this checkpoint (--prototypes names one)")
    return lines


def handbook_remarks(crystals: list[Atoms]) -> list[str]:
    """Where the first place is not that of the lowest energy."""
    lines = []
    for number, atoms in enumerate(crystals):
        promoted = atoms.info.get("handbook") or atoms.info.get("known")
        if atoms.info.get("rank") != 1 or not promoted or "e_above_hull" not in atoms.info:
            continue
        same = [other.info["e_above_hull"] for other in crystals[number + 1 :] if "e_above_hull" in other.info and alike(atoms, other)]
        if same and min(same) < atoms.info["e_above_hull"] - 0.0005:
            why = "handbooks give it at ambient conditions" if atoms.info.get("handbook") else "it was observed"
            lines.append(f"{number} is first because {why}: PBE's energies of polymorphs are off by up to some 50 meV/atom")
    return lines[:3]


def alike(one: Atoms, other: Atoms) -> bool:
    """Whether two crystals have the same composition."""
    return bool(one.symbols.formula.reduce()[0] == other.symbols.formula.reduce()[0])


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


def print_ranking(crystals: list[Atoms], rows: list[Summary], title: str) -> None:
    """One row per crystal with its prototype."""
    table = Table(title=title, title_justify="left")
    headings = ("#", "formula", "probability", "meV/atom", "group and sites", "Å³/atom")
    for heading in headings:
        left = heading in ("formula", "group and sites")
        table.add_column(heading, justify="left" if left else "right", no_wrap=heading not in ("group and sites",))
    for number, (atoms, row) in enumerate(list(zip(crystals, rows, strict=True))[:200]):
        info = atoms.info
        chance = chance_text(info["probability"]) if "probability" in info else "-"
        cells = (str(number), atoms.symbols.formula.format("reduce"), chance + (" known" if info.get("known") else ""), energy_text(info))
        style = "red" if not row.valid else None
        table.add_row(*cells, info.get("prototype", "from random atoms"), f"{row.volume_per_atom:.2f}", style=style)
    console = Console()
    console.print(table)
    if len(rows) > 200:
        console.print(f"… and {len(rows) - 200} more")


def chance_text(probability: float) -> str:
    """A probability with as many digits as tell it from its neighbours."""
    return f"{probability:.3f}" if probability >= 0.001 else f"{probability:.0e}".replace("e-0", "e-")


def energy_text(info: Mapping[str, Any]) -> str:
    """Energy above the hull in meV/atom, marked by where it comes from."""
    if "e_above_hull" not in info:
        return "-"
    return f"{1000 * info['e_above_hull']:.0f}{_MARKS[info['e_above_hull_source']]}"


def _entry(atoms: Atoms, row: Summary) -> dict[str, Any]:
    # what was read back from a file holds NumPy's numbers
    told = {key: getattr(atoms.info[key], "item", lambda value=atoms.info[key]: value)() for key in (*RANKED, "seed") if key in atoms.info}
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


def _write(
    folder: RunFolder, crystals: list[Atoms], rows: list[Summary], loaded: Any, start: Start, walk: Walk | None, device: str | None
) -> None:
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
    (folder.folder / "generation.traj").unlink(missing_ok=True)  # of a run that is overwritten
    if walk is not None:
        seed = int(crystals[0].info["seed"])
        if start.again is not None and seed != start.atoms.info["seed"]:
            start = start.again(seed)  # the first tries put atoms on each other
        atoms = constrained(start)
        atoms.calc = ScoreCalculator(loaded, device=device)
        unfinished = folder.folder / ".generation.traj"
        AnnealedLangevin(atoms, walk=walk, trajectory=unfinished).run()
        unfinished.replace(folder.folder / "generation.traj")
    folder.finish(crystals)
