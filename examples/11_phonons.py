"""Is cubic SrTiO3 stable, and what does it become? Phonons with an interatomic potential, and the mode at R followed downhill.

    python examples/11_phonons.py

Writes cubic/bands.png, tilted.cif and what else :func:`asegen.stability.phonon_plots.write_phonons` writes.
"""

from ase import Atoms
from ase.io import write

from asegen.stability.phonon_follow import follow
from asegen.stability.phonon_plots import write_phonons
from asegen.stability.phonons import phonons
from asegen.stability.relax import relax

sites = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
cubic = Atoms("SrTiO3", scaled_positions=sites, cell=[3.905, 3.905, 3.905], pbc=True)

# phonons are those of a minimum within the symmetry: relax with the same potential first
relaxed = relax(cubic, "7net-0", symmetry="keep")
print(f"relaxed: a = {relaxed.atoms.cell.lengths()[0]:.3f} Å after {relaxed.calls} calls of the potential")

found = phonons(relaxed.atoms, "7net-0")
print(found)
for mode in found.imaginary:
    print("  ", mode)
write_phonons(found, "cubic")

# the octahedra tilt: along one axis, two, or all three
for descent in follow(found, at="R"):
    print(descent)
    if descent.spacegroup == 140:
        write("tilted.cif", descent.atoms)
