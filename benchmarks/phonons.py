"""Phonons of known crystals: stable or not, how much depends on the displacement, and the share of time in the potential.

    OMP_NUM_THREADS=1 python benchmarks/phonons.py [--potential 7net-0] [--follow]

Each crystal is relaxed within its symmetry, then its phonons are computed with displacements of 0.01 and 0.03 Å. "optic" is the highest
frequency at Γ. With --follow cubic SrTiO3 is followed to a stable crystal.
"""

import argparse
import time

import torch
from ase import Atoms
from ase.build import bulk

from asegen.calculators.potentials import potential
from asegen.stability.phonon_follow import fix, follow
from asegen.stability.phonons import phonons
from asegen.stability.relax import relax

SITES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
CRYSTALS = {
    "Si": bulk("Si", a=5.46),
    "NaCl": bulk("NaCl", "rocksalt", a=5.70),
    "MgO": bulk("MgO", "rocksalt", a=4.25),
    "GaAs": bulk("GaAs", "zincblende", a=5.75),
    "CsCl": bulk("CsCl", "cesiumchloride", a=4.12),
    "SrTiO3": Atoms("SrTiO3", scaled_positions=SITES, cell=[3.905] * 3, pbc=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="7net-0")
    parser.add_argument("--follow", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)
    model = potential(args.potential)
    began = time.perf_counter()
    model.calculator()
    print(f"{model.name}: loaded in {time.perf_counter() - began:.1f} s")
    phonons(bulk("Si"), model, supercell=(1, 1, 1), rough=True)  # imports of phonopy and seekpath
    columns = "crystal  atoms  calls  lowest at   0.01 Å  0.03 Å   optic  sum rule  relax s  phonons s  potential s  ratio"
    print(columns)
    relaxed = {}
    for name, crystal in CRYSTALS.items():
        began = time.perf_counter()
        relaxed[name] = relax(crystal, model).atoms
        seconds = time.perf_counter() - began
        found = phonons(relaxed[name], model, displacement=0.01, rough=True)
        wide = phonons(relaxed[name], model, displacement=0.03, rough=True)
        optic = found.frequencies([0, 0, 0]).max()
        print(
            f"{name:7s} {found.atoms_in_supercell:6d} {found.displacements:6d}  {found.q_label or '-':9s} {found.min_frequency:8.3f}"
            f" {wide.min_frequency:7.3f} {optic:7.2f} {found.sum_rule:9.1e} {seconds:8.2f} {found.seconds:10.2f}"
            f" {found.seconds_forces:12.2f} {found.seconds / found.seconds_forces:6.2f}"
        )
        for mode in found.imaginary:
            print(f"          {mode}")
    if args.follow:
        cubic = phonons(relaxed["SrTiO3"], model, rough=True)
        began = time.perf_counter()
        for descent in follow(cubic, at="R"):
            print(f"at R: {descent}")
        print(f"follow: {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        fixed = fix(cubic, rough=True)
        for number, tried in enumerate(fixed.tried, start=1):
            for descent in tried:
                print(f"round {number}: {descent}")
        print(
            f"fix: {fixed.phonons}, {1000 * fixed.gain:.2f} meV/atom lower, {time.perf_counter() - began:.1f} s; {fixed.reason or 'done'}"
        )


if __name__ == "__main__":
    main()
