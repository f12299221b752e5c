"""Structure prediction without a model: copy the nearest training structure. What a generator has to beat.

    python benchmarks/template_baseline.py TRAIN FILE [-n 500] [--where structure_source=mp20] [--best-of 20] [--json OUT]

Among the training structures with the same counts of atoms per element (anonymous, as written), the formula's elements are
assigned to the template's so that the count-weighted difference of Mendeleev numbers is least; the nearest template is
taken and its volume scaled by atomic volumes. Same rows and same numbers as ``structure_prediction.py``.
"""

import argparse
import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from ase import Atoms
from matching import known_rows, matched_rows, print_table, report, validation_rows

from asegen.datasets import read_rows
from asegen.prior import atomic_volumes

_MANY = 10_000


def mendeleev():
    """Mendeleev number of each atomic number, shape (119,)."""
    from pymatgen.core import Element

    return np.array([0.0] + [float(Element.from_Z(z).mendeleev_no or 0) for z in range(1, 119)])


def counts_of(numbers):
    """Elements in the order of falling counts, and the counts."""
    elements, counts = np.unique(numbers, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return elements[order], tuple(counts[order].tolist())


def substitutions(counts):
    """Permutations that exchange elements of equal count only."""
    groups = [list(group) for _, group in itertools.groupby(range(len(counts)), key=lambda k: counts[k])]
    return [list(itertools.chain(*p)) for p in itertools.product(*(itertools.permutations(g) for g in groups))]


class Templates:
    """Training structures by anonymous formula."""

    def __init__(self, rows):
        self.rows = defaultdict(list)
        for row in rows:
            elements, counts = counts_of(row.numbers)
            self.rows[counts].append((elements, row))
        self.number = mendeleev()
        self.tables = {counts: np.array([e for e, _ in found]) for counts, found in self.rows.items()}
        self.volume = np.nan_to_num(atomic_volumes(), nan=18.0)

    def predict(self, numbers, n):
        """The n nearest templates with the formula's elements."""
        elements, counts = counts_of(numbers)
        if counts not in self.tables:
            return []
        table, weights = self.number[self.tables[counts]], np.array(counts)
        options = []
        for order in substitutions(counts)[:_MANY]:
            options.append(((np.abs(self.number[elements[order]] - table) * weights).sum(1), order))
        best = np.argmin([distance for distance, _ in options], axis=0)
        distance = np.min([distance for distance, _ in options], axis=0)
        made = []
        for k in np.argsort(distance, kind="stable")[:n]:
            old, row = self.rows[counts][k]
            assigned = dict(zip(old.tolist(), elements[options[best[k]][1]].tolist(), strict=True))
            new = np.array([assigned[int(z)] for z in row.numbers])
            scale = (self.volume[new].sum() / self.volume[row.numbers].sum()) ** (1 / 3)
            made.append(Atoms(numbers=new, scaled_positions=row.frac, cell=row.cell * scale, pbc=True))
        return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("file")
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--where", help="COLUMN=VALUE: rows of FILE to use")
    parser.add_argument("--best-of", type=int, default=20)
    parser.add_argument("--json")
    args = parser.parse_args()

    train = [row for row in read_rows(args.train) if not row.error]
    templates = Templates(train)
    truth = validation_rows(args.file, args.n, args.seed, [args.where] if args.where else [])
    start = time.time()
    made = [templates.predict(atoms.numbers, args.best_of) for atoms in truth]
    seconds = (time.time() - start) / len(truth)
    rms = [one for one, _ in matched_rows(made, truth)]
    table = report(rms, truth, known_rows(args.train, truth))
    print_table(f"template, {seconds:.3f} s per formula", table)
    if args.json:
        Path(args.json).write_text(json.dumps({"seconds": seconds, "table": table}, indent=1))


if __name__ == "__main__":
    main()
