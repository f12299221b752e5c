"""Speed of the embedded atom density: value and gradient of one cell of 20 atoms, against the machine's matrix products.

    python benchmarks/ead_speed.py [--repeats 31] [--threads 1 2]

Run on an otherwise idle machine; medians, and the fastest call in brackets, in ms. Value and gradient include the search for neighbours.

Operations are counted, not measured. With M monomials and G radial functions a neighbour costs

    2 M G                moments: one multiplication and one addition for every pair of functions
    M + 4 G + 30         monomials; radial functions (difference, two products, exponential); vector, length, damping

and, since a gradient takes two products for every one of the value and about twice the elementwise work, three times that with the
gradient. Sums over atoms are left out. An exponential or a cosine counts as one operation, so the elementwise part costs more time
than its count says: most of the distance to the peak is there and in moving rows of M + G numbers through memory.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from ase import Atoms

from asegen import CrystalBatch
from asegen.descriptors import OURS, PAPER
from asegen.descriptors.ead import exponents
from asegen.graphs import neighbours


def timed(call, repeats):
    """Median and least seconds of a call."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), min(seconds)


def perovskite():
    """20 atoms at random in a cell of a typical density, 11.7 Å³ an atom."""
    random = np.random.default_rng(0)
    cell = np.diag([5.4, 5.5, 7.9]) + random.normal(scale=0.2, size=(3, 3))
    return Atoms("Ca4Ti4O12", scaled_positions=random.random((20, 3)), cell=cell, pbc=True)


def operations(ead, edges, gradient):
    """Floating-point operations, as counted above."""
    monomials, radial = sum(len(exponents(order)) for order in ead.orders), len(ead.radial)
    value = 2 * monomials * radial + monomials + 4 * radial + 30
    return edges * value * (3 if gradient else 1)


def peak(dtype, repeats):
    """Operations a second of the best matrix product, 1,024 on a side."""
    a = torch.randn(1024, 1024, dtype=dtype)
    return 2 * 1024**3 / timed(lambda: a @ a, repeats)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    args = parser.parse_args()
    print("descriptor threads type     neighbours   search        value          value+gradient    MFLOP  GFLOP/s  of peak")
    for threads in args.threads:
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.float64):
            best = peak(dtype, 10)
            for name, ead in (("OURS", OURS), ("PAPER", PAPER)):
                batch = CrystalBatch.from_atoms(perovskite(), dtype)
                edges = len(neighbours(batch, ead.reach).source)

                def value(ead=ead, batch=batch):
                    with torch.no_grad():
                        return ead(batch)

                def gradient(ead=ead, batch=batch):
                    frac, cell = batch.frac.clone().requires_grad_(), batch.cell.clone().requires_grad_()
                    found = ead(CrystalBatch(batch.species, frac, cell, batch.num_atoms))
                    return torch.autograd.grad(found.sum(), (frac, cell))

                times = [timed(call, args.repeats) for call in (lambda e=ead, b=batch: neighbours(b, e.reach), value, gradient)]
                row = "  ".join(f"{median * 1e3:6.2f} ({least * 1e3:5.2f})" for median, least in times)
                work = operations(ead, edges, gradient=True)
                rate = work / times[2][0]
                kind = str(dtype).removeprefix("torch.")
                share = f"{work / 1e6:6.1f}  {rate / 1e9:7.2f}  {100 * rate / best:5.1f} %"
                print(f"{name:10s} {threads:7d} {kind:8s} {edges:10,d}  {row}  {share}", flush=True)
        print(f"  ({edges:,d} of PAPER's {len(neighbours(batch, PAPER.cutoff).source):,d} neighbours within its cutoff have a part in it)")


if __name__ == "__main__":
    main()
