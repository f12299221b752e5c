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


def run_prototypes(
    formula: str, n: int, units: int, spacegroup: str | None, new: bool, diversity: float, source: str, as_json: bool
) -> None:
    """Print the ranked prototypes of a formula."""
    if n < 1:
        raise FormulaError(f"n = {n} must be at least 1")
    model = load_prototypes(source)
    numbers = numbers_of(formula, units)
    found, novelty = model.rank(numbers, spacegroup=spacegroup, new=new, diversity=diversity)
    rows = [
        {
            "rank": rank,
            "spacegroup": candidate.prototype.number,
            "symbol": space_group(candidate.prototype.number).symbol,
            "sites": format_sites(candidate.sites),
            "probability": round(candidate.probability, 5),
            "known": candidate.known,
            "examples": len(candidate.prototype.examples),
            "volume_per_atom": round(candidate.volume / sum(candidate.prototype.counts), 3),
        }
        for rank, candidate in enumerate(found[:n], 1)
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
    table = Table(title=f"prototypes of {formula_of(numbers)}, model '{model.name}'", title_justify="left")
    for heading in ("rank", "probability", "group", "sites", "examples", "Å³/atom"):
        table.add_column(heading, justify="left" if heading in ("group", "sites") else "right")
    for row in rows:
        chance = f"{row['probability']:.3f}" + (" known" if row["known"] else "")
        symbol = f"{row['symbol']} ({row['spacegroup']})"
        table.add_row(str(row["rank"]), chance, symbol, str(row["sites"]), str(row["examples"]), f"{row['volume_per_atom']:.2f}")
    console.print(table)
    console.print(f"some other prototype than all that are known: {novelty:.3f}")
