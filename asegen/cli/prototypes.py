"""`asegen prototypes`."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from ..errors import FormulaError
from ..formulas import formula_of, numbers_of
from ..prototypes.model import load_prototypes
from ..symmetry.groups import space_group
from ..symmetry.sites import format_sites
from .generate import SOURCES, chance_text, energy_text, read_units


def run_prototypes(
    formula: str,
    n: int,
    units: str | None,
    order: str,
    spacegroup: str | None,
    new: bool,
    diversity: float,
    source: str,
    as_json: bool,
) -> None:
    """Print the ranked prototypes of a formula."""
    if n < 1:
        raise FormulaError(f"n = {n} must be at least 1")
    model = load_prototypes(source)
    numbers = numbers_of(formula)
    counts = None if units is None else read_units(units)
    found, novelty = model.rank(formula, n, units=counts, order=order, spacegroup=spacegroup, new=new, diversity=diversity)
    rows = [
        {
            "rank": rank,
            "spacegroup": candidate.prototype.number,
            "symbol": space_group(candidate.prototype.number).symbol,
            "sites": format_sites(candidate.sites),
            "units": candidate.units,
            "atoms": sum(candidate.prototype.counts),
            "probability": float(f"{candidate.probability:.6g}"),
            "known": candidate.known,
            "e_above_hull": round(candidate.hull, 4) if candidate.hull_source else None,
            "e_above_hull_source": candidate.hull_source or None,
            "material_id": candidate.material_id or None,
            "examples": len(candidate.prototype.examples),
            "volume_per_atom": round(candidate.volume / sum(candidate.prototype.counts), 3),
        }
        for rank, candidate in enumerate(found, 1)
    ]
    if as_json:
        entries = {"formula": formula_of(numbers), "model": model.name, "other_prototype": round(novelty, 5), "prototypes": rows}
        print(json.dumps(entries, indent=1))
        return
    console = Console()
    if not rows:
        where = f" in {space_group(spacegroup).symbol}" if spacegroup is not None else ""
        console.print(f"no known prototype of {formula_of(numbers)}{where} in model '{model.name}'; asegen generate draws sites instead")
        return
    table = Table(title=f"prototypes of {formula_of(numbers)}, model '{model.name}', order '{order}'", title_justify="left")
    for heading in ("rank", "probability", "meV/atom", "group and sites", "Z", "seen", "Å³/atom"):
        table.add_column(heading, justify="left" if heading == "group and sites" else "right", no_wrap=heading != "group and sites")
    for row in rows:
        chance = chance_text(float(str(row["probability"]))) + (" known" if row["known"] else "")
        energy = energy_text(row) if row["e_above_hull"] is not None else "-"
        cells = (str(row["rank"]), chance, energy, f"{row['symbol']} {row['sites']}", str(row["units"]), str(row["examples"]))
        table.add_row(*cells, f"{row['volume_per_atom']:.2f}")
    console.print(table)
    told = [words for source, words in SOURCES.items() if source in {row["e_above_hull_source"] for row in rows}]
    if told:
        console.print(f"meV/atom above the convex hull: {'; '.join(told)}", highlight=False)
    console.print(f"some other prototype than all that are known: {novelty:.3f}")
