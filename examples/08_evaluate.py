"""How good is a set of crystals? Every metric of the field, from files or from memory.

python examples/08_evaluate.py
"""

from asegen import generate
from asegen.datasets.writers import write_crystals
from asegen.metrics import coverage, evaluate, match, uniqueness, validity

# what two generators made, and what is known of these formulas
formulas = ["SrTiO3", "MgO", "NaCl", "LiFePO4", "CaF2", "Mg2SiO4"]
crystals = generate(formulas, n=4, seed=0)
random = generate(formulas, n=4, seed=0, start="random", steps=20)
known = [crystal for crystal in crystals if crystal.info["rank"] == 1]

checked = validity(crystals)
print(f"valid: structure {checked.structure:.0%}, composition {checked.composition:.0%} ({checked.protocol})")
print(f"unique: {uniqueness(crystals).share:.0%}")

# do random starts find the first-ranked prototypes? Best of four answers to each formula
found = match(random, known)
print(f"match {found.rate:.0%}, rms < 0.1: {found.strict_01:.0%} ({found.protocol})")
print(f"COV-R {coverage(random, known).recall:.0%}")

# all at once, as `asegen evaluate random.extxyz --reference known.extxyz` prints it
write_crystals(random, "random.extxyz")
result = evaluate("random.extxyz", known)
for name, value in result.numbers().items():
    print(f"{name:40s} {value}")
for name, why in result.missing.items():
    print(f"not computed: {name} ({why})")

# and for others' scripts: the tensor file of CDVAE and DiffCSP
write_crystals(random, "eval_gen.pt")
