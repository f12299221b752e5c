"""In what order relaxed candidates should be listed: first answers by the prior, by energy, and by both.

    OMP_NUM_THREADS=1 python benchmarks/relaxed_order.py FILE --out rows.jsonl [-n 500] [-k 8] [--where structure_source=mp20]
        [--softness 0.01 0.025 0.05 0.1] [--processes 2] [--only-table] [--json OUT]

FILE is a validation split (``mp20/val.csv.gz``). For each of n rows the k best candidates of the checkpoint mp20 are generated from the
formula, ``generate(formula, n=k, units=1, order="likely", new=True)``, relaxed with 7net-0 and compared with the row, before and after
the relaxation (protocol: ``matching.py``). A row is written to --out as soon as its candidates are relaxed: a killed run goes on from
there, and a larger -n of the same seed adds to it. ``--only-table`` prints what there is so far.

Orders of the relaxed candidates, of which the first counts:

prior           as generated (the same without relaxation: "prior, unrelaxed")
energy          lowest first, whatever else is known of it; "energy, trusted": what is not trusted comes last
log p - E/25    by prior and energy together, for each softness in meV/atom; what is not trusted comes last
oracle          the one that matches best (the same without relaxation: "oracle, unrelaxed")

A candidate that cannot be relaxed stays in its place of the prior order, and comes last in the others, as it was generated.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matching import best_of, plain, print_table, rms_of, shares, validation_rows

from asegen import generate
from asegen.checkpoint import load_checkpoint
from asegen.errors import AsegenError
from asegen.formulas import formula_of
from asegen.metrics.cache import structure_key
from asegen.prototypes.model import load_prototypes
from asegen.stability import Relaxed, polymorphs
from asegen.stability.polymorphs import log_probabilities
from asegen.stability.relax import relax_each
from asegen.store import Journal


def candidates(formula: str, k: int, seed: int, checkpoint: Any) -> list[Atoms]:
    """The k best candidates, without what the training data hold; none for a formula that cannot be answered."""
    try:
        return generate(formula, n=k, units=1, seed=seed, order="likely", new=True, checkpoint=checkpoint)
    except AsegenError as error:
        print(f"{formula}: {error}", flush=True)
        return []


def row_of(truth: Atoms, made: list[Atoms], relaxed: list[Relaxed]) -> dict[str, Any]:
    """Everything that the table needs of a row: rms of each candidate, and the polymorphs with their members."""
    found = polymorphs(relaxed, order="energy")
    energies = [one.energy_per_atom for one in relaxed]
    # the last sane state of a relaxation that was stopped is no answer
    after = [one.atoms if one.energy_per_atom is not None else one.start for one in relaxed]
    return {
        "key": structure_key(truth).hex(),
        "formula": formula_of(truth.numbers),
        "atoms": len(truth),
        "prototype": [atoms.info.get("prototype") for atoms in made],
        "prior": [atoms.info.get("probability") for atoms in made],
        "energy": energies,
        "gain": [one.energy_gain for one in relaxed],
        "group": [one.spacegroup for one in relaxed],
        "reason": [one.reason for one in relaxed],
        "seconds": [round(one.seconds, 1) for one in relaxed],
        "rms_before": rms(made, truth),
        "rms_after": rms(after, truth),
        "polymorphs": [
            {
                "first": next(i for i in one.members if relaxed[i] is one.relaxed),
                "members": list(one.members),
                "energy": one.relaxed.energy_per_atom,
                "prior": one.prior,
                "trusted": one.trusted,
                "reason": one.reason,
            }
            for one in found
        ],
    }


def rms(made: list[Atoms], truth: Atoms) -> list[float | None]:
    """rms of every answer to a row; None where it does not match, since JSON has no NaN."""
    found, _ = rms_of(([plain(atoms) for atoms in made], plain(truth)))
    return [None if np.isnan(value) else round(float(value), 5) for value in found]


def answers(row: dict[str, Any], softness: list[float]) -> dict[str, float]:
    """rms of the first answer of each order; NaN where it does not match."""
    before, after = np.array(row["rms_before"], dtype=float), np.array(row["rms_after"], dtype=float)
    if not len(before):
        return dict.fromkeys(names(softness), float("nan"))
    found = row["polymorphs"]
    lost = [i for i, energy in enumerate(row["energy"]) if energy is None]
    every = [one["first"] for one in sorted(found, key=lambda one: one["energy"])] + lost
    trusted = [one["first"] for one in sorted(found, key=lambda one: (not one["trusted"], one["energy"]))] + lost
    chosen = {"prior, unrelaxed": before[0], "prior": after[0], "energy": after[every[0]], "energy, trusted": after[trusted[0]]}
    good = [one for one in found if one["trusted"]]
    for value in softness:
        first = trusted[0]
        # without a probability anywhere there is nothing but the energy
        if good and all(one["prior"] is not None for one in good):
            logs = log_probabilities([one["energy"] for one in good], [one["prior"] for one in good], value)
            first = good[int(np.argmax(logs))]["first"]
        chosen[f"log p - E/{1000 * value:g}"] = after[first]
    chosen |= {"oracle": best_of(after), "oracle, unrelaxed": best_of(before)}
    return {name: float(chosen[name]) for name in names(softness)}


def names(softness: list[float]) -> list[str]:
    """The orders, as the table has them."""
    both = [f"log p - E/{1000 * value:g}" for value in softness]
    return ["prior, unrelaxed", "prior", "energy", "energy, trusted", *both, "oracle", "oracle, unrelaxed"]


def run(truth: list[Atoms], journal: Journal, args: argparse.Namespace, checkpoint: Any) -> None:
    """Generate, relax, and write each row as soon as it is complete."""
    done = {entry["key"] for entry in journal.entries()}
    todo = [atoms for atoms in truth if structure_key(atoms).hex() not in done]
    print(f"{len(truth) - len(todo)} of {len(truth)} rows are there", flush=True)
    made = [candidates(formula_of(atoms.numbers), args.k, args.seed, checkpoint) for atoms in todo]
    owner = [(number, place) for number, row in enumerate(made) for place in range(len(row))]
    results: dict[int, dict[int, Relaxed]] = {}
    journal.add([row_of(atoms, [], []) for atoms, row in zip(todo, made, strict=True) if not row])
    begin, finished = time.monotonic(), 0
    # all candidates in one stream, so that the processes start once and none waits for the slowest of a row
    flat = [atoms for row in made for atoms in row]
    for index, result in relax_each(flat, args.potential, processes=args.processes, path=False):
        number, place = owner[index]
        results.setdefault(number, {})[place] = result
        if len(results[number]) == len(made[number]):
            own = results.pop(number)
            journal.add([row_of(todo[number], made[number], [own[k] for k in range(len(made[number]))])])
            finished += 1
            print(f"{finished} rows, {(time.monotonic() - begin) / finished:.1f} s each", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--out", required=True, help="JSON lines; a killed run goes on from it")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", action="append", default=[], help="COLUMN=VALUE or COLUMN<VALUE: rows of FILE to use; may be repeated")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--checkpoint", default="mp20")
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--softness", type=float, nargs="+", default=[0.005, 0.01, 0.025, 0.05, 0.1, 0.2], help="eV/atom")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("--json", help="the table as JSON")
    args = parser.parse_args()

    truth = validation_rows(args.file, args.n, args.seed, args.where, (1, args.max_atoms))
    checkpoint = load_checkpoint(args.checkpoint)
    request = {"file": Path(args.file).name, "k": args.k, "seed": args.seed, "potential": args.potential}
    request |= {"checkpoint": checkpoint.hash, "prototypes": load_prototypes(checkpoint.name).hash}
    journal = Journal(args.out, request)
    if not args.only_table:
        run(truth, journal, args, checkpoint)
    wanted = {structure_key(atoms).hex() for atoms in truth}
    rows = [row for row in journal.entries() if row["key"] in wanted]
    if not rows:
        print("no row yet")
        return
    firsts = [answers(row, args.softness) for row in rows]
    table = {name: {"first": shares([first[name] for first in firsts])} for name in names(args.softness)}
    print_table(f"{len(rows)} rows, {args.k} candidates each, {args.checkpoint}, {args.potential}", table)
    lost = sum(energy is None for row in rows for energy in row["energy"])
    doubted = [one for row in rows for one in row["polymorphs"] if not one["trusted"]]
    holes = sum("below all others" in (one["reason"] or "") for one in doubted)
    print(f"{lost} candidates without an energy; {len(doubted) - holes} polymorphs not converged, {holes} taken for holes of the potential")
    if args.json:
        summary = {**request, "rows": len(rows), "lost": lost, "not converged": len(doubted) - holes, "holes": holes, "table": table}
        Path(args.json).write_text(json.dumps(summary, indent=1))


# the processes that relax import this file
if __name__ == "__main__":
    main()
