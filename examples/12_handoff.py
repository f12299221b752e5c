"""Hand generated crystals to density-functional codes, and read back what they say.

python examples/12_handoff.py
bash vasp/job.sh                  # where VASP is
"""

import shutil
from pathlib import Path

from asegen import generate
from asegen.handoff import collect, export, run_espresso, write_results

crystals = [*generate("Si2", n=1, seed=0), *generate("NaCl", n=2, seed=0)]

# a folder for each crystal, with the Materials Project's settings; POTCAR.spec names the licensed files
done = export(crystals, "vasp", to="vasp", overwrite=True)
print(f"VASP: {', '.join(done.names)}; energies of the kind {', '.join(done.energy_scales)}")
print("  " + (Path("vasp") / done.names[0] / "INCAR").read_text().replace("\n", "; "))

# every folder remembers where its crystal came from, and lists itself as "not run yet"
for one in collect("vasp"):
    print(f"  {one.folder}: seed {one.row()['seed']}, {one.reason}")

if shutil.which("pw.x"):
    # cut-offs far too small for anything but an example
    small = {"ecutwfc": 16, "ecutrho": 64, "kspacing": 0.7}
    done = export(crystals[0], "espresso", to="espresso", espresso_options=small, overwrite=True)
    run_espresso(Path("espresso") / done.names[0])
    (one,) = collect("espresso")
    print(f"Quantum ESPRESSO: converged {one.converged}, {one.energy_per_atom:.4f} eV/atom on the scale {one.energy_scale}")
    print(f"  largest force {one.max_force:.4f} eV/Å, volume {crystals[0].get_volume():.2f} -> {one.atoms.get_volume():.2f} Å³")
    write_results([one], "relaxed.extxyz")
else:
    print("pw.x is not installed; on Debian and Ubuntu: apt-get install quantum-espresso")
