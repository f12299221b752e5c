"""What a score model does as ASE dynamics: do crystals form in a space group, and do optimizers bring perturbed ones back?

    python benchmarks/score_dynamics.py                       # all three tables, both large checkpoints
    python benchmarks/score_dynamics.py --part form --seeds 30 --checkpoint mp20

form
    ``AnnealedLangevin`` from ``random_crystal(spacegroup=..., sites=...)``: shares of seeds that pymatgen's ``StructureMatcher`` (its
    defaults; it scales volumes) calls the known structure, their rms in (V/N)^(1/3), and their volumes.
free
    The same from ``random_crystal(formula)``, without a group.
optimize
    Ten textbook crystals, as they are and rattled (0.05, 0.1 Å per component) and strained (2, 5 %; only where the cell moves), given to
    optimizers on ``ScoreFilter``. "Back" is an rms of 0.03 Å and, where the cell moves, a largest log-strain of 0.02.

Lattice parameters are measured ones, so that the models' are expected 1 to 3 % larger in volume (they learned from PBE).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.optimize import BFGS, FIRE, LBFGS
from ase.spacegroup import crystal
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.io.ase import AseAtomsAdaptor

from asegen import AnnealedLangevin, ScoreCalculator, ScoreFilter, SpaceGroup, random_crystal
from asegen.errors import AsegenError

# formula of the primitive cell, group, sites; elements, coordinates and conventional cell (a, b, c, alpha, beta, gamma) of the known one
FORM = {
    "TiO2 rutile": ("P4_2/mnm", "Ti:2a O:4f", "Ti O", [(0, 0, 0), (0.305, 0.305, 0)], (4.594, 4.594, 2.959)),
    "FeS2 pyrite": ("Pa-3", "Fe:4a S:8c", "Fe S", [(0, 0, 0), (0.385, 0.385, 0.385)], (5.417, 5.417, 5.417)),
    "CdI2": ("P-3m1", "Cd:1a I:2d", "Cd I", [(0, 0, 0), (1 / 3, 2 / 3, 0.2492)], (4.24, 4.24, 6.84, 90, 90, 120)),
    "MgAl2O4 spinel": (
        "Fd-3m",
        "Mg:8a Al:16d O:32e",
        "Mg Al O",
        [(0.125, 0.125, 0.125), (0.5, 0.5, 0.5), (0.2624, 0.2624, 0.2624)],
        (8.08, 8.08, 8.08),
    ),
    "CuFeS2 chalcopyrite": (
        "I-42d",
        "Cu:4a Fe:4b S:8d",
        "Cu Fe S",
        [(0, 0, 0), (0, 0, 0.5), (0.2575, 0.25, 0.125)],
        (5.289, 5.289, 10.423),
    ),
    "CaCO3 calcite": (
        "R-3c",
        "Ca:6b C:6a O:18e",
        "Ca C O",
        [(0, 0, 0), (0, 0, 0.25), (0.2578, 0, 0.25)],
        (4.99, 4.99, 17.06, 90, 90, 120),
    ),
    "Al2O3 corundum": ("R-3c", "Al:12c O:18e", "Al O", [(0, 0, 0.3522), (0.3063, 0, 0.25)], (4.759, 4.759, 12.991, 90, 90, 120)),
    "La2CuO4": (
        "I4/mmm",
        "La:4e Cu:2a O:4c,4e",
        "La Cu O O",
        [(0, 0, 0.361), (0, 0, 0), (0, 0.5, 0), (0, 0, 0.182)],
        (3.78, 3.78, 13.2),
    ),
    "SiO2 quartz": (
        "P3_221",
        "Si:3a O:6c",
        "Si O",
        [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
        (4.913, 4.913, 5.405, 90, 90, 120),
    ),
    "CaTiO3 perovskite": (
        "Pnma",
        "Ca:4c Ti:4b O:4c,8d",
        "Ca Ti O O",
        [(0.0365, 0.25, -0.0065), (0, 0, 0.5), (0.4838, 0.25, 0.0711), (0.2888, 0.0371, 0.7112)],
        (5.442, 7.64, 5.38),
    ),
}


def textbook() -> dict[str, tuple[int, Atoms]]:
    """Space group and primitive cell of crystals that everybody knows."""
    rutile = crystal(("Ti", "O"), [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90])
    cubic = crystal(("Sr", "Ti", "O"), [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[3.905] * 3 + [90] * 3)
    return {
        "NaCl": (225, bulk("NaCl", "rocksalt", 5.64)),
        "MgO": (225, bulk("MgO", "rocksalt", 4.21)),
        "Si": (227, bulk("Si", "diamond", 5.43)),
        "GaAs": (216, bulk("GaAs", "zincblende", 5.65)),
        "CsCl": (221, bulk("CsCl", "cesiumchloride", 4.12)),
        "TiO2": (136, rutile),
        "SrTiO3": (221, cubic),
        "Al": (225, bulk("Al", "fcc", 4.05)),
        "Fe": (229, bulk("Fe", "bcc", 2.87)),
        "CaF2": (225, bulk("CaF2", "fluorite", 5.46)),
    }


def row_of_walks(name: str, known: Atoms, starts: Iterable[Atoms], calc: ScoreCalculator) -> str:
    """Run the walk from every start; one row of the table."""
    matcher, expected = StructureMatcher(), AseAtomsAdaptor.get_structure(known)
    found, volumes, count, free = [], [], 0, "-"
    for atoms in starts:
        count += 1
        atoms.calc = calc
        if atoms.constraints:
            free = "{} + {}".format(*atoms.constraints[0].degrees_of_freedom)
        AnnealedLangevin(atoms).run()
        bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        match = matcher.get_rms_dist(AseAtomsAdaptor.get_structure(bare), expected)
        if match is not None:
            found.append(float(match[0]))
            volumes.append(100 * (bare.get_volume() / len(bare) / known.get_volume() * len(known) - 1))
    numbers = f"{np.mean(found):.3f} | {np.mean(volumes):+.1f} % | {np.abs(volumes).max():.1f} %" if found else "- | - | -"
    return f"| {name} | {free} | {len(found)}/{count} | {numbers} |"


def forms(calc: ScoreCalculator, seeds: int) -> None:
    """Table of crystals that form in a given group, on given sites."""
    print("\n| in its group | free parameters, atoms + cell | known structure | rms | volume, mean | worst |\n|---|---|---|---|---|---|")
    for name, (group, sites, elements, places, cell) in FORM.items():
        number = SpaceGroup(group, random_crystal(spacegroup=group, sites=sites, seed=0)).group.number
        lengths = list(cell) if len(cell) == 6 else [*cell, 90, 90, 90]
        known = crystal(elements.split(), places, spacegroup=number, setting=2 if number == 227 else 1, cellpar=lengths)
        starts = (random_crystal(spacegroup=group, sites=sites, seed=seed) for seed in range(seeds))
        print(row_of_walks(f"{name}, {group} {sites}", known, starts, calc), flush=True)


def free(calc: ScoreCalculator, seeds: int) -> None:
    """Table of crystals that form out of nothing but a formula."""
    print("\n| no group | free parameters | known structure | rms | volume, mean | worst |\n|---|---|---|---|---|---|")
    for name, (_, known) in textbook().items():
        starts = (random_crystal(known.get_chemical_formula("metal"), seed=seed) for seed in range(seeds))
        print(row_of_walks(name, known, starts, calc), flush=True)


def perturbed(known: Atoms, seed: int, rattle: float, strain: float) -> Atoms:
    """A crystal whose largest principal strain is `strain` and whose coordinates are off by `rattle` Å each."""
    random, atoms = np.random.default_rng(seed), known.copy()
    matrix = random.standard_normal((3, 3))
    matrix += matrix.T
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * matrix / np.abs(np.linalg.eigvalsh(matrix)).max()), scale_atoms=True)
    atoms.positions += rattle * random.standard_normal(atoms.positions.shape)
    return atoms


def errors(atoms: Atoms, known: Atoms) -> tuple[float, float, float]:
    """Rms distance (Å, in the known cell, without the common shift), largest log-strain, relative error of the volume."""
    delta = atoms.get_scaled_positions(wrap=False) - known.get_scaled_positions(wrap=False)
    delta -= delta[0]
    delta -= np.round(delta)
    distance = np.linalg.norm((delta - delta.mean(0)) @ known.cell.array, axis=1)
    stretch = np.linalg.svd(np.linalg.solve(known.cell.array, atoms.cell.array))[1]
    return float(np.sqrt((distance**2).mean())), float(np.abs(np.log(stretch)).max()), atoms.get_volume() / known.get_volume() - 1


def optimize(calc: ScoreCalculator, sigmas: Sequence[float], optimizers: Sequence[type]) -> None:
    """Table of perturbed crystals given to optimizers."""
    header = ["moves", "optimizer", "sigma/Å", "perfect stay", "0.05 Å, 2 % back", "0.1 Å, 5 % back", "steps", "worst rms/Å"]
    header += ["strain, median", "worst", "volume, median", "worst"]
    print(f"\n| {' | '.join(header)} |\n|" + "---|" * len(header))
    for moves in ("positions", "cell too", "cell in a group"):
        for optimizer in optimizers:
            for sigma in sigmas:
                print(row_of_optimizer(calc, sigma, optimizer, moves), flush=True)


def row_of_optimizer(calc: ScoreCalculator, sigma: float, optimizer: type, moves: str) -> str:
    """One row: ten crystals, three perturbations."""
    rows, steps = [], []
    calc.set(sigma=sigma)
    for group, known in textbook().values():
        for seed, (rattle, strain) in enumerate(((0, 0), (0.05, 0.02), (0.1, 0.05))):
            if moves == "cell in a group":  # a strain that the group allows, alternately larger and smaller; atoms on their sites
                atoms = known.copy()
                atoms.set_cell(atoms.cell.array * (1 + strain * (1 if seed == 1 else -1)), scale_atoms=True)
                atoms.set_constraint(SpaceGroup(group, atoms))
            else:
                atoms = perturbed(known, seed, rattle, strain if moves == "cell too" else 0)
            atoms.calc = calc
            dynamics = optimizer(ScoreFilter(atoms, cell=moves != "positions"), logfile=None)
            try:
                dynamics.run(fmax=0.05, steps=100)
            except AsegenError as error:
                return f"| {moves} | {optimizer.__name__} | {sigma} | {error} |" + " |" * 8
            rows.append(errors(atoms, known))
            steps.append(dynamics.nsteps)
    table = np.abs(rows).reshape(-1, 3, 3)
    back = ((table[..., 0] < 0.03) & (table[..., 1] < 0.02)).sum(0)
    counts = " | ".join(f"{number}/{len(table)}" for number in back)
    rms, strain, volume = table[..., 0], table[..., 1], 100 * table[..., 2]
    cell = f"{np.median(strain):.3f} | {strain.max():.3f} | {np.median(volume):.1f} % | {volume.max():.1f} %"
    return f"| {moves} | {optimizer.__name__} | {sigma} | {counts} | {np.mean(steps):.0f} | {rms.max():.3f} | {cell} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", nargs="+", default=["mp20", "default"])
    parser.add_argument("--part", nargs="+", choices=("form", "free", "optimize"), default=["form", "free", "optimize"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.02, 0.05, 0.1, 0.2])
    parser.add_argument("--optimizer", nargs="+", choices=("FIRE", "BFGS", "LBFGS"), default=["FIRE", "BFGS"])
    options = parser.parse_args()
    chosen = {"FIRE": FIRE, "BFGS": BFGS, "LBFGS": LBFGS}
    for checkpoint in options.checkpoint:
        calc = ScoreCalculator(checkpoint)
        print(f"\n## {checkpoint}")
        if "form" in options.part:
            forms(calc, options.seeds)
        if "free" in options.part:
            free(calc, options.seeds)
        if "optimize" in options.part:
            optimize(calc, options.sigma, [chosen[name] for name in options.optimizer])


if __name__ == "__main__":
    main()
