"""Train a checkpoint on your own structures, then generate with it.

    python examples/03_train_on_your_structures.py

The same from the shell:

    asegen train my.toml --data FOLDER_OF_CIFS --out runs/my
    asegen generate NaCl --checkpoint runs/my/my.safetensors
"""

import tempfile
from pathlib import Path

import ase.io
import numpy as np
from ase.build import bulk

from asegen import generate
from asegen.datasets.convert import convert
from asegen.training.recipe import Recipe
from asegen.training.train import train

work = Path(tempfile.mkdtemp())

# your structures: any files ASE reads, CIFs, or a CSV with a `cif` column
random = np.random.default_rng(0)
for number in range(64):
    formula = random.choice(["Li", "Na", "K"]) + random.choice(["F", "Cl", "Br"])
    ase.io.write(work / f"{number:03d}.cif", bulk(formula, "rocksalt", a=random.uniform(5, 6)))

# parsed once into memory-mapped arrays; what cannot be read is counted and named
meta = convert([work], work / "arrays")
print(meta["count"], "crystals,", len(meta["skipped"]), "skipped")

# a recipe is one small dataclass (or a TOML file); a real one has thousands of steps, see data/recipes
recipe = Recipe(
    name="salts",
    steps=60,
    batch_size=32,
    ema=0.95,
    network_options={"width": 32, "layers": 2, "heads": 4},
    precision="32-true",
)
checkpoint = train(recipe, work / "arrays", work / "run", device="cpu", progress=False)
print("losses, checkpoint and curves are in", checkpoint.parent)

for atoms in generate("NaCl", n=2, checkpoint=checkpoint, steps=20):
    print(atoms.get_chemical_formula(), atoms.cell.cellpar().round(2))
