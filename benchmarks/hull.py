"""Distances to the hull against the published ones: MP-20 validation structures with an original e_above_hull.

    python benchmarks/hull.py --data DATA                     # single points of 7net-0, 300 structures: half a minute
    python benchmarks/hull.py --data DATA --potential chgnet
    python benchmarks/hull.py --data DATA --relax -n 100      # relaxed first
    python benchmarks/hull.py --data DATA --made -n 10        # against competing phases that are made, not read: minutes each

DATA holds mp20/val.csv.gz and reference/mp2020_formation_energies.csv.gz.
"""

import argparse
import csv
import gzip
import random
import time
from pathlib import Path

import numpy as np

from asegen.calculators.potentials import potential
from asegen.datasets.readers import from_cif
from asegen.metrics.cache import Cache
from asegen.stability.competing import CompetingPhases
from asegen.stability.entry_files import read_entries
from asegen.stability.hull import hull_distance


def chosen_rows(data: Path, n: int, seed: int, elements: int) -> list[dict[str, str]]:
    with gzip.open(data / "mp20" / "val.csv.gz", "rt") as stream:
        rows = [row for row in csv.DictReader(stream) if row["structure_source"] == "mp20" and row["e_above_hull"]]
    rows = [row for row in rows if row["formation_energy_per_atom"]]
    random.Random(seed).shuffle(rows)
    if elements:
        rows = [row for row in rows if 2 <= len(set(from_cif(row["cif"], "", {}).numbers)) <= elements]
    return rows[:n]


def table(title: str, found: np.ndarray, truth: np.ndarray, limit: float = 0.05) -> None:
    good = np.isfinite(found)
    error = found[good] - truth[good]
    right, base = ((found <= limit) == (truth <= limit))[good].mean(), (truth <= limit)[good].mean()
    unstable = good & (truth > limit)
    print(f"{title}: {good.sum()} of {len(found)}")
    print(
        f"  MAE {1000 * np.abs(error).mean():.1f}, median {1000 * np.median(np.abs(error)):.1f}, bias {1000 * error.mean():+.1f} meV/atom"
    )
    print(f"  stable within {limit:g} eV/atom: {100 * right:.1f} % right (always yes: {100 * base:.1f} %);", end=" ")
    print(f"of {unstable.sum()} unstable ones {100 * (found[unstable] > limit).mean() if unstable.any() else np.nan:.0f} % found")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-n", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--relax", action="store_true")
    parser.add_argument("--made", action="store_true", help="competing phases are made; 2 and 3 elements only")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    rows = chosen_rows(args.data, args.n, args.seed, 3 if args.made else 0)
    crystals = [from_cif(row["cif"], row["material_id"], {}).to_atoms() for row in rows]
    for atoms, row in zip(crystals, rows, strict=True):
        atoms.info["material_id"] = row["material_id"]
    published = np.array([float(row["e_above_hull"]) for row in rows])
    begin = time.perf_counter()
    reference = read_entries(args.data / "reference" / "mp2020_formation_energies.csv.gz")
    print(f"{len(reference)} entries read in {time.perf_counter() - begin:.1f} s")
    options = {"relax": args.relax, "processes": args.processes}
    begin = time.perf_counter()
    results = hull_distance(crystals, args.potential, reference, **options)
    found = np.array([result.e_above_hull for result in results], dtype=float)
    print(f"{args.potential}, {'relaxed' if args.relax else 'as given'}: {time.perf_counter() - begin:.1f} s")
    table("e_above_hull, reference file", found, published)
    formation = np.array([result.formation_energy_per_atom for result in results], dtype=float)
    error = np.abs(formation - np.array([float(row["formation_energy_per_atom"]) for row in rows]))
    print(f"  formation energy: MAE {1000 * np.nanmean(error):.1f} meV/atom")
    for k in np.argsort(-np.nan_to_num(np.abs(found - published), nan=np.inf))[:8]:
        parts = ", ".join(f"{part.fraction:.2f} {part.formula}" for part in results[k].decomposition)
        value = results[k].reason or f"{found[k]:+.3f} (published {published[k]:.3f})"
        print(f"    {results[k].name} {results[k].formula}: {value} -> {parts}")
    if args.made:
        made = CompetingPhases(potential(args.potential), args.effort, Cache(args.cache), args.processes)
        offline = []
        for atoms, row, result in zip(crystals, rows, results, strict=True):
            begin = time.perf_counter()
            alone = hull_distance(atoms, args.potential, made, relax=args.relax, processes=1)
            offline.append(np.nan if alone.e_above_hull is None else alone.e_above_hull)
            parts = ", ".join(f"{part.fraction:.2f} {part.formula}" for part in alone.decomposition)
            print(
                f"  {row['material_id']} {alone.formula}: published {float(row['e_above_hull']):.3f}, file {result.e_above_hull:.3f}, "
                f"made {offline[-1]:.3f} -> {parts} ({time.perf_counter() - begin:.0f} s) {alone.reason}",
                flush=True,
            )
        # the file holds the crystal itself, so that nothing is below its hull; what is made may not
        clipped = np.maximum(np.array(offline), 0)
        table("e_above_hull, competing phases made, at least 0", clipped, published)
        table("the same, against the file's hull", clipped, np.maximum(found, 0))


if __name__ == "__main__":
    main()
