"""What the structure prediction benchmarks share: which rows, the published match criterion, and the table of shares.

Protocol: pymatgen ``StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10).get_rms_dist(answer, truth)``; rms in units of
(V/N)^(1/3). "rms<.2" and "rms<.1" are shares of all rows, matched or not. Rows are drawn with a fixed seed. Best of k is the
least rms of the first k answers.
"""

import csv
import gzip
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from ase import Atoms

warnings.filterwarnings("ignore")


def validation_rows(file, n, seed, where=(), atoms=(1, 20), unseen=None, energy=None):
    """n crystals of a file drawn with a seed; `where` (COLUMN=VALUE, COLUMN<VALUE) chooses among the rows of a CSV file.

    `unseen` names a training file: rows whose composition occurs in it are left out. `energy` names a column that goes to
    ``info["energy"]``.
    """
    from asegen.datasets import read_rows

    keep = None
    if where:
        opener = gzip.open if str(file).endswith(".gz") else open
        with opener(file, "rt") as stream:
            keep = [all(_holds(line, condition) for condition in where) for line in csv.DictReader(stream)]
    seen = {composition_of(row.numbers) for row in read_rows(unseen) if not row.error} if unseen else set()
    rows = [row for k, row in enumerate(read_rows(file)) if not row.error and (keep is None or keep[k])]
    rows = [row for row in rows if atoms[0] <= len(row.numbers) <= atoms[1] and composition_of(row.numbers) not in seen]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])
    made = [Atoms(numbers=rows[i].numbers, scaled_positions=rows[i].frac, cell=rows[i].cell, pbc=True) for i in chosen]
    for atoms, i in zip(made, chosen, strict=True):
        atoms.info["name"] = rows[i].name
        if energy:
            atoms.info["energy"] = rows[i].properties.get(energy, np.nan)
    return made


def _holds(line, condition):
    if "<" in condition:
        column, value = condition.split("<")
        return bool(line[column]) and float(line[column]) < float(value)
    column, value = condition.split("=")
    return line[column] == value


def composition_of(numbers):
    """Elements with their share, as something that compares."""
    elements, counts = np.unique(numbers, return_counts=True)
    return tuple(elements.tolist()), tuple((counts // np.gcd.reduce(counts)).tolist())


def rms_of(task):
    """rms of every answer to one row, NaN where it does not match; and its volume over the true one, per atom."""
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core import Structure

    answers, truth = task
    target = Structure(*truth)
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    found = [matcher.get_rms_dist(Structure(*answer), target) for answer in answers]
    volumes = [abs(np.linalg.det(cell)) / len(numbers) for cell, numbers, _ in answers]
    ratio = np.array(volumes) / (target.volume / len(target))
    # a wrong volume is invisible to the published criterion, which scales it away
    return np.array([np.nan if f is None else f[0] for f in found]), ratio


def plain(atoms):
    return atoms.cell.array, atoms.numbers, atoms.get_scaled_positions()


def matched_rows(made, truth, processes=2):
    """rms of all answers and their volume ratios, one pair of arrays per row."""
    tasks = [([plain(a) for a in answers], plain(t)) for answers, t in zip(made, truth, strict=True)]
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(rms_of, tasks, chunksize=4))


def volume_errors(found):
    """Of first answers that match (rms < .2): median, 95th percentile of |V/V_true − 1|, and the share within 12 %, all in %."""
    errors = np.array([abs(ratio[0] - 1) for rms, ratio in found if len(rms) and rms[0] < 0.2])
    if not len(errors):
        return {}
    shares = (np.median(errors), np.quantile(errors, 0.95), (errors < 0.12).mean())
    return dict(zip(("volume median", "volume 95 %", "volume within 12 %"), (round(100 * float(x), 1) for x in shares), strict=True))


def best_of(rms, k=None):
    """Least rms of the first k answers, NaN if none matches."""
    part = np.asarray(rms[:k], dtype=float)
    return float(np.nanmin(part)) if np.isfinite(part).any() else float("nan")


def shares(rms):
    rms = np.asarray(rms)
    matched = rms[~np.isnan(rms)]
    return {
        "n": len(rms),
        "match": round(100 * len(matched) / len(rms), 1),
        "rms<.2": round(100 * float((matched < 0.2).sum()) / len(rms), 1),
        "rms<.1": round(100 * float((matched < 0.1).sum()) / len(rms), 1),
        "mean rms": round(float(matched.mean()), 4) if len(matched) else None,
    }


def report(rms, truth, known=None, best=(5, 20)):
    """Shares of the first answer and of the best of several; by size, and apart for known and new prototypes."""
    sizes = np.array([len(atoms) for atoms in truth])
    groups = {"all": np.ones(len(truth), dtype=bool)}
    groups |= {f"{a}-{b} atoms": (sizes >= a) & (sizes <= b) for a, b in ((1, 5), (6, 10), (11, 20), (21, 100))}
    if known is not None:
        groups |= {"known prototypes": np.asarray(known), "new prototypes": ~np.asarray(known)}
    counts = [1, *(k for k in best if any(len(r) > 1 for r in rms))]
    table = {}
    rms = [found[0] if isinstance(found, tuple) else found for found in rms]
    for name, mask in groups.items():
        if mask.any():
            table[name] = {f"best of {k}" if k > 1 else "first": shares([best_of(rms[i], k) for i in np.nonzero(mask)[0]]) for k in counts}
    return table


def prototype_of(numbers, cell, frac):
    """Anonymous formula and space group (symprec 0.1): what makes a prototype known."""
    import spglib

    found = spglib.get_symmetry_dataset((cell, frac, numbers), symprec=0.1)
    counts = tuple(sorted(np.unique(numbers, return_counts=True)[1].tolist()))
    return counts, found.number if found is not None else 0


def known_rows(train, truth):
    """Whether anonymous formula and space group of each row occur in a training file."""
    from asegen.datasets import read_rows

    seen = {prototype_of(row.numbers, row.cell, row.frac) for row in read_rows(train) if not row.error}
    return np.array([prototype_of(a.numbers, a.cell.array, a.get_scaled_positions()) in seen for a in truth])


def print_table(title, table):
    """The report as text."""
    print(title)
    print(f"{'':18s} {'answers':12s} {'n':>5s} {'match':>7s} {'rms<.2':>7s} {'rms<.1':>7s} {'mean rms':>9s}")
    for name, parts in table.items():
        for which, row in parts.items():
            mean = f"{row['mean rms']:9.4f}" if row["mean rms"] is not None else f"{'-':>9s}"
            print(f"{name:18s} {which:12s} {row['n']:5d} {row['match']:7.1f} {row['rms<.2']:7.1f} {row['rms<.1']:7.1f} {mean}")
