"""How many calls of the potential a relaxation takes, beside ASE's optimizers, and what it costs beside the calls.

    OMP_NUM_THREADS=1 python benchmarks/relaxation.py [--potential 7net-0]
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE, LBFGS
from ase.optimize.cellawarebfgs import CellAwareBFGS
from ase.units import GPa

from asegen import generate, random_crystal
from asegen.calculators.potentials import potential
from asegen.stability import relax

FMAX, SMAX = 0.005, 0.02  # eV/Å, GPa
MOST = 300


def calls_of_ase(atoms: Atoms, calculator: object, optimizer: type) -> tuple[int, float]:
    """Calls until both limits are met, and the energy per atom then."""
    work = atoms.copy()
    work.set_constraint()
    work.calc = calculator
    filtered = FrechetCellFilter(work, exp_cell_factor=1.0 if optimizer is CellAwareBFGS else None)
    calls = 0
    for _ in optimizer(filtered, logfile=None).irun(fmax=0, steps=MOST):
        calls += 1
        if np.linalg.norm(work.get_forces(), axis=1).max() < FMAX and np.abs(work.get_stress()).max() < SMAX * GPa:
            break
    return calls, work.get_potential_energy() / len(work)


def starts() -> dict[str, list[Atoms]]:
    """Symmetric, shaken and random cells."""
    symmetric = generate("SrTiO3", 4, units=1)
    shaken = [atoms.copy() for atoms in symmetric]
    for seed, atoms in enumerate(shaken):
        atoms.rattle(0.03, seed=seed)
    return {"prototypes": symmetric, "shaken": shaken, "random": [random_crystal("SrTiO3", seed=seed) for seed in range(4)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--potential", default="7net-0")
    model = potential(parser.parse_args().potential)
    warnings.simplefilter("ignore")
    calculator = model.calculator()
    relax(bulk("Si"), model)  # everything is imported
    print(f"calls until forces < {FMAX} eV/Å, stress < {SMAX} GPa, and eV/atom; {MOST + 1}: not reached")
    for kind, crystals in starts().items():
        for atoms in crystals:
            found = relax(atoms, model, symmetrize=False, path=False, steps=MOST)
            if found.energy_per_atom is None:
                print(f"{kind:<10} {found.reason}")
                continue
            cells = [f"{kind:<10} {atoms.info.get('prototype', '')[:24]:<24} here {found.calls:>3} {found.energy_per_atom:.4f}"]
            for optimizer in (CellAwareBFGS, LBFGS, FIRE):
                calls, energy = calls_of_ase(atoms, calculator, optimizer)
                cells.append(f"{optimizer.__name__} {calls:>3} {energy:.4f}")
            print(" | ".join(cells), flush=True)
    print("\nprocess time of relaxations over that of the calls")
    spent = [0.0]
    kind = type(calculator)
    original = kind.calculate

    def timed(self: object, *args: object, **options: object) -> None:
        begin = time.process_time()
        original(self, *args, **options)
        spent[0] += time.process_time() - begin

    kind.calculate = timed
    titanate, phosphate = (generate(formula, n, units=1) for formula, n in (("SrTiO3", 8), ("Li2Fe2P2O8", 2)))
    for name, crystals in (("Si2", [bulk("Si", a=5.7)] * 4), ("SrTiO3", titanate), ("Li2Fe2P2O8", phosphate)):
        spent[0] = 0.0
        begin = time.process_time()
        results = relax(crystals, model, processes=1)
        total = time.process_time() - begin
        calls = sum(result.calls for result in results)
        print(f"{name:<12} {calls:>4} calls, {1000 * spent[0] / calls:.0f} ms each, {total / spent[0]:.3f}")


if __name__ == "__main__":
    main()
