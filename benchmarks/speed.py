"""Speed of sampling, of a calculator call, of one network call against size and symmetry, and of training. Prints tables.

    python benchmarks/speed.py [--checkpoint default] [--part sampling calculator scaling symmetry training] [--data ARRAYS]

Run on an otherwise idle machine; medians of five.
"""

import argparse
import statistics
import time

import torch
from ase.build import bulk

from asegen import CrystalBatch, ScoreCalculator, generate, load_checkpoint, random_crystal
from asegen.networks import build_network
from asegen.prior import lattice_coordinates, reference_volume
from asegen.symmetry import Symmetry, symmetric_crystal
from asegen.systems.diffusion import DiffusionSystem


def median(call, repeats=5):
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sampling(checkpoint):
    print(f"\nsampling, batch of 64, default steps, {torch.get_num_threads()} threads: s/structure")
    for precision in ("float32", "bfloat16"):
        for formula in ("SrTiO3", "Sr2Ti2O6", "Sr4Ti4O12"):
            seconds = median(lambda f=formula, p=precision: generate(f, 64, 1, start="random", checkpoint=checkpoint, precision=p), 3)
            print(f"  {precision:9s} {formula:10s} {seconds / 64:.4f}")


def calculator(checkpoint):
    print("\none ScoreCalculator call (forces and stress, new positions) against the bare network on the same crystal: ms")
    loaded = load_checkpoint(checkpoint)
    for formula in ("SrTiO3", "Sr4Ti4O12"):
        atoms = random_crystal(formula, seed=0)
        atoms.calc = ScoreCalculator(checkpoint, sigma=0.5)
        batch = CrystalBatch.from_atoms(atoms)
        volume = reference_volume(batch.species, batch.index, 1)
        y = lattice_coordinates(batch.cell, volume)
        inputs = loaded.system._inputs(batch, y, torch.tensor([0.5], dtype=torch.float64), volume)
        from asegen.systems.diffusion import _to_float

        inputs = _to_float(inputs)

        def bare(inputs=inputs):
            with torch.no_grad():
                loaded.system.network(inputs)

        def call(atoms=atoms):
            atoms.positions += 1e-9
            atoms.get_forces()
            atoms.get_stress()

        network, whole = median(bare, 51), median(call, 51)
        print(f"  {formula:10s} network {network * 1e3:.2f}  calculator {whole * 1e3:.2f}  ratio {whole / network:.2f}")


def scaling():
    print("\none network call on one crystal: ms")
    for name, options in (("dense", {"width": 192, "layers": 6}), ("equivariant", {"features": 32, "layers": 3})):
        system = DiffusionSystem(build_network(name, options)).eval()
        row = []
        for size in (10, 30, 100, 300, 1000):
            if name == "dense" and size > 300:
                row.append("    (memory)")
                continue
            atoms = bulk("Si") * (max(1, round(size / 2)), 1, 1)
            batch = CrystalBatch.from_atoms(atoms)
            time_ = torch.tensor([0.5], dtype=torch.float64)

            def call(s=system, b=batch, t=time_):
                with torch.no_grad():
                    s.scores(b, t)

            row.append(f"{len(atoms):5d}: {median(call, 3) * 1e3:8.1f}")
        print(f"  {name:12s}" + "  ".join(row))


def symmetry():
    print("\nequivariant network, 20 atoms: ms/crystal for the whole cell and for one atom per orbit, and what that changes")
    cases = (
        ("P1", "Ca4Ti4O12", None),
        ("Pnma", "Ca4Ti4O12", "Ca:4c Ti:4b O:4c,8d"),
        ("R-3c", "Ca6Ti6O8", "Ca:18e Ti:18e O:12c,12c"),
        ("Fm-3m", "Mg6Al6O8", "Mg:24d Al:24e O:32f"),
    )
    system = DiffusionSystem(build_network("equivariant", {"features": 32, "layers": 3})).eval()
    for group, formula, sites in cases:
        atoms = symmetric_crystal(formula, group, sites, seed=0)
        for count in (1, 32):
            batch = CrystalBatch.from_atoms([atoms] * count)
            shared = Symmetry.cat([atoms.constraints[0].symmetry] * count)
            time_ = torch.full((count,), 0.5, dtype=torch.float64)

            def call(given, b=batch, t=time_):
                with torch.no_grad():
                    return system.scores(b, t, symmetry=given)

            whole, part = (median(lambda given=given: call(given)) / count * 1e3 for given in (None, shared))
            away = max(float((a - b).nan_to_num().abs().max()) for a, b in zip(call(shared), call(None), strict=True))
            orbits = shared.num_sites // count
            print(
                f"  {group:6s} {orbits:2d} orbits, batch of {count:2d}: whole {whole:6.2f}  orbits {part:6.2f}"
                f"  ratio {whole / part:4.1f}  difference {away:.0e}"
            )


def training(data):
    from asegen.datasets import CrystalArrays
    from asegen.training.module import TrainingModule
    from asegen.training.recipe import Recipe
    from asegen.training.sampler import SizeGroupedBatches
    from asegen.training.train import train

    arrays = CrystalArrays.open(data)
    recipe = Recipe(name="speed", steps=40, network_options={"width": 192, "layers": 6})
    system = DiffusionSystem(build_network("dense", recipe.network_options))
    batches = [arrays.batch(b) for b in list(SizeGroupedBatches(arrays.num_atoms, 256, seed=0))[:40]]

    def alone():
        for batch in batches:
            system.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = system.loss(batch, torch.Generator().manual_seed(0)).total
            loss.backward()

    bare = median(alone, 1)
    import tempfile

    stamps = []
    original = TrainingModule.training_step

    def stamped(self, batch, number):
        stamps.append(time.perf_counter())
        return original(self, batch, number)

    TrainingModule.training_step = stamped
    with tempfile.TemporaryDirectory() as folder:
        train(recipe, data, folder, device="cpu", progress=False)
    TrainingModule.training_step = original
    whole = (stamps[-1] - stamps[5]) / (len(stamps) - 6) * 40
    print(f"\n40 steps of 256 crystals: forward+backward alone {bare:.1f} s, training {whole:.1f} s, {100 * bare / whole:.0f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--part", nargs="*", default=["sampling", "calculator", "scaling", "symmetry"])
    parser.add_argument("--data")
    args = parser.parse_args()
    if "sampling" in args.part:
        sampling(args.checkpoint)
    if "calculator" in args.part:
        calculator(args.checkpoint)
    if "scaling" in args.part:
        scaling()
    if "symmetry" in args.part:
        symmetry()
    if "training" in args.part:
        training(args.data)


if __name__ == "__main__":
    main()
