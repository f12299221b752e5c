"""Random structure search beside the models, on the same formulas and with the same budget: UniMat's comparison (section 3.3).

    python benchmarks/random_search.py --data DATA --out results.json                    # 30 formulas, 10 starts: an hour of one core
    python benchmarks/random_search.py --data DATA --out results.json --formulas 5 -n 4  # minutes
    python benchmarks/random_search.py --data DATA --out results.json --only-table       # of what there is so far

DATA holds mp20/val.csv.gz. Formulas are drawn from its original rows with at most --most-atoms atoms; the model is the checkpoint mp20,
which has seen none of these structures (but perhaps other structures of the same formula). Single layers are left out. A start is
relaxed with at most --steps calls of the potential. A killed run goes on from --out.

A structure is found if StructureMatcher (pymatgen's tolerances) says that it is the validation structure relaxed with the same potential.
"""

import argparse
import csv
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from asegen.calculators.potentials import potential
from asegen.checkpoint import load_checkpoint, replacing
from asegen.datasets.readers import from_cif
from asegen.errors import AsegenError
from asegen.formulas import formula_of
from asegen.metrics.discovery import formation_energy_difference, search_success
from asegen.stability import relax
from asegen.stability.sanity import why_not_relax
from asegen.stability.search import METHODS, search

SAME = 0.001  # eV/atom
LIMITS = (25, 50)  # calls of the potential


def chosen_rows(data: Path, count: int, most_atoms: int, seed: int, model: Any, checkpoint: Any) -> list[tuple[str, Atoms]]:
    """(material id, crystal) of different formulas that potential and checkpoint know."""
    with gzip.open(data / "mp20" / "val.csv.gz", "rt") as stream:
        rows = [row for row in csv.DictReader(stream) if row["structure_source"] == "mp20"]
    random.Random(seed).shuffle(rows)
    found: dict[str, tuple[str, Atoms]] = {}
    for row in rows:
        if len(found) == count:
            break
        atoms = from_cif(row["cif"], row["material_id"], {}).to_atoms()
        if len(atoms) > most_atoms or model.refusal(atoms) or row["pretty_formula"] in found:
            continue
        if why_not_relax(atoms, model.reach, cell=True):  # single layers
            continue
        try:
            checkpoint.check_numbers(atoms.numbers, row["pretty_formula"])
        except AsegenError:
            continue
        found[row["pretty_formula"]] = row["material_id"], atoms
    return list(found.values())


def of_formula(atoms: Atoms, method: str, args: argparse.Namespace, truth: Atoms) -> dict[str, Any]:
    """One search: a row for each start with whether its result is the true structure."""
    options = {"potential": args.potential, "seed": args.seed, "checkpoint": args.checkpoint, "steps": args.steps, "processes": 1}
    begin, cpu = time.perf_counter(), time.process_time()
    found = search(formula_of(np.sort(atoms.numbers)), args.n, method, **options)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    matcher, adaptor = StructureMatcher(), AseAtomsAdaptor()
    wanted = adaptor.get_structure(truth)
    same = [bool(matcher.fit(wanted, adaptor.get_structure(structure.atoms))) for structure in found.structures]
    keys = ("start", "energy_per_atom", "converged", "reason", "calls", "seconds", "spacegroup", "structure")
    rows = [{key: row[key] for key in keys} for row in found.rows]
    for row in rows:
        row["true"] = row["structure"] is not None and same[row["structure"] - 1]
    return {"rows": rows, "seconds": seconds, "cpu_seconds": cpu}


def run(args: argparse.Namespace) -> dict[str, Any]:
    request = {key: getattr(args, key) for key in ("n", "most_atoms", "seed", "steps", "potential", "checkpoint")}
    results: dict[str, Any] = {"request": request, "formulas": {}}
    if args.out and args.out.exists():
        results = json.loads(args.out.read_text())
        if results["request"] != request:
            raise SystemExit(f"{args.out} holds results of another request: {results['request']}")
    if args.only_table:
        return results
    model, checkpoint = potential(args.potential), load_checkpoint(args.checkpoint)
    rows = chosen_rows(args.data, args.formulas, args.most_atoms, args.seed, model, checkpoint)
    for number, (name, atoms) in enumerate(rows, start=1):
        truth = None
        entry = results["formulas"].setdefault(name, {"formula": atoms.get_chemical_formula("metal"), "atoms": len(atoms)})
        for method in METHODS:
            if method in entry:
                continue
            if truth is None:
                truth = relax(atoms, args.potential, path=False)
                entry["truth"] = {"energy_per_atom": truth.energy_per_atom, "converged": truth.converged, "spacegroup": truth.spacegroup}
            entry[method] = of_formula(atoms, method, args, truth.atoms)
            if args.out:
                with replacing(args.out) as stream:
                    stream.write(json.dumps(results).encode())
            best = min((e for e in energies(entry, method) if np.isfinite(e)), default=np.nan)
            above, hits = best - entry["truth"]["energy_per_atom"], sum(row["true"] for row in entry[method]["rows"])
            print(
                f"{number:3d} {name} {entry['formula']} ({entry['truth']['spacegroup']}) {method}: best {above:+.3f} eV/atom above the "
                f"truth, found {hits} times, {sum(row['calls'] for row in entry[method]['rows'])} calls, {entry[method]['seconds']:.0f} s",
                flush=True,
            )
    return results


def energies(entry: dict[str, Any], method: str) -> list[float]:
    """Energy of each start's result, eV/atom; NaN where the relaxation did not converge."""
    return [row["energy_per_atom"] if row["converged"] else np.nan for row in entry[method]["rows"]]


def table(results: dict[str, Any]) -> None:
    entries = [entry for entry in results["formulas"].values() if all(method in entry for method in METHODS)]
    request = results["request"]
    limits = f"at most {request['most_atoms']} atoms, {request['n']} starts each, at most {request['steps']} calls for each start"
    print(f"\n{len(entries)} formulas of {limits}")
    if not entries:
        return
    print(f"{'':46s}" + "".join(f"{method:>12s}" for method in METHODS))

    def line(name: str, values: list[float], style: str = "12.3f") -> None:
        print(f"{name:46s}" + "".join(format(value, style) for value in values))

    flat = {method: [row for entry in entries for row in entry[method]["rows"]] for method in METHODS}
    converged = {method: [[row["converged"] for row in entry[method]["rows"]] for entry in entries] for method in METHODS}
    success = {method: search_success(dict(enumerate(converged[method]))) for method in METHODS}
    line("formulas with a converged relaxation (UniMat)", [success[m].share for m in METHODS])
    line("relaxations converged", [success[m].converged for m in METHODS])
    for limit in LIMITS:
        line(f"  within {limit} calls", [float(np.mean([r["converged"] and r["calls"] <= limit for r in flat[m]])) for m in METHODS])
    line("calls of the potential per start", [float(np.mean([r["calls"] for r in flat[m]])) for m in METHODS], "12.1f")
    found = {m: np.array([any(r["true"] for r in entry[m]["rows"]) for entry in entries]) for m in METHODS}
    truth = np.array([entry["truth"]["energy_per_atom"] for entry in entries])
    best = {m: np.array([np.nanmin([*energies(entry, m), np.inf]) for entry in entries]) for m in METHODS}
    line("true structure found, formulas", [float(found[m].mean()) for m in METHODS])
    line("true structure found, starts", [float(np.mean([r["true"] for r in flat[m]])) for m in METHODS])
    line("best not above the truth by 1 meV/atom", [float((best[m] <= truth + SAME).mean()) for m in METHODS])
    line("  below it by more than 1 meV/atom", [float((best[m] < truth - SAME).mean()) for m in METHODS])
    line("calls per formula whose truth was found", [sum(r["calls"] for r in flat[m]) / max(1, found[m].sum()) for m in METHODS], "12.0f")
    finite = np.all([np.isfinite(best[m]) for m in METHODS], axis=0)
    line("best above the truth, mean, meV/atom", [1000 * float((best[m] - truth)[finite].mean()) for m in METHODS], "12.1f")
    line("best above the truth, median, meV/atom", [1000 * float(np.median((best[m] - truth)[finite])) for m in METHODS], "12.1f")
    print("UniMat, DFT, 100 starts: converged 0.55 (AIRSS), 0.81 (model); ΔE_f(model, AIRSS) -0.68 eV/atom, reduction rate 0.80\n")
    headings = (("ΔE_f, best", 14), ("reduction", 12), ("ΔE_f, all", 14), ("reduction", 12), ("lower by 1 meV", 16), ("higher", 8))
    print(f"{'against random':46s}" + "".join(f"{text:>{width}s}" for text, width in headings))
    for method in METHODS[1:]:
        a, b = ({k: energies(entry, m) for k, entry in enumerate(entries)} for m in (method, "random"))
        lowest, every = formation_energy_difference(a, b), formation_energy_difference(a, b, "all")
        lower, higher = (float((s * (best[method] - best["random"])[finite] < -SAME).mean()) for s in (1, -1))
        print(
            f"{method:46s}{lowest.difference:14.4f}{lowest.reduction_rate:12.2f}{every.difference:14.4f}{every.reduction_rate:12.2f}"
            f"{lower:16.2f}{higher:8.2f}"
        )
    kinds = sorted({row["start"] for row in flat["random"]})
    for kind in kinds:
        rows = [row for row in flat["random"] if row["start"] == kind]
        parts = (np.mean([r["converged"] for r in rows]), np.mean([r["true"] for r in rows]), np.mean([r["calls"] for r in rows]))
        print(f"random, {kind} starts: converged {parts[0]:.3f}, truth found {parts[1]:.3f}, {parts[2]:.1f} calls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="JSON file with the results, from which a run goes on")
    parser.add_argument("--formulas", type=int, default=30)
    parser.add_argument("-n", "--n", type=int, default=10, help="starts for each formula and method")
    parser.add_argument("--most-atoms", type=int, default=12)
    parser.add_argument("--steps", type=int, default=120, help="calls of the potential for a start at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--checkpoint", default="mp20")
    parser.add_argument("--only-table", action="store_true")
    args = parser.parse_args()
    table(run(args))


if __name__ == "__main__":
    main()
