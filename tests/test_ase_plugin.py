import json
import subprocess
import sys

import ase.constraints
import ase.io
import numpy as np
import pytest
from ase.constraints import dict2constraint
from ase.io.trajectory import Trajectory

from asegen import SpaceGroup, random_crystal
from asegen.store import RunFolder


def fresh(code: str, *arguments) -> str:
    """What a new Python process prints that was never told of asegen."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_process_that_knows_only_ase_reads_trajectories_with_the_constraint(tmp_path):
    atoms = random_crystal("SrTiO3", spacegroup="P4mm", seed=2)
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        for _ in range(3):
            trajectory.write(atoms)
            atoms.rattle(0.02)
    code = """
import sys, json, ase.io
frames = ase.io.read(sys.argv[1], index=":")
constraint = frames[0].constraints[0]
print(json.dumps([len(frames), type(constraint).__name__, constraint.group.number, constraint.sites, constraint.degrees_of_freedom]))
"""
    frames, name, number, sites, freedom = json.loads(fresh(code, tmp_path / "a.traj"))
    constraint = atoms.constraints[0]
    assert (frames, name, number) == (3, "SpaceGroup", 99)
    assert [tuple(s) for s in sites] == constraint.sites and tuple(freedom) == constraint.degrees_of_freedom


def test_ase_alone_loads_neither_torch_nor_the_networks(tmp_path):
    atoms = random_crystal("NaCl", seed=0)
    ase.io.write(tmp_path / "b.traj", atoms)
    code = (
        "import sys, ase.io; ase.io.read(sys.argv[1]); print([m for m in sys.modules if m == 'torch' or m.startswith('asegen.symmetry')])"
    )
    assert fresh(code, tmp_path / "b.traj").strip() == "[]"


def test_crystals_of_an_unfinished_run_are_read_by_ase(tmp_path):
    crystals = [random_crystal("NaCl", seed=k) for k in range(4)]
    run = RunFolder(tmp_path, {"n": 4})
    run.add([(0, crystals[0]), (2, crystals[2])])
    run.add([(1, crystals[1])])
    with open(run.partial, "a") as stream:
        stream.write('{"position": 3, "numb')  # being written
    found = ase.io.read(run.partial, index=":")
    assert [a.info["seed"] for a in found] == [0, 2, 1]
    assert np.abs(found[1].positions - crystals[2].positions).max() < 1e-12
    assert ase.io.read(run.partial).info["seed"] == 1 and ase.io.read(run.partial, index=1).info["seed"] == 2
    code = "import sys, ase.io; print(len(ase.io.read(sys.argv[1], index=':')), ase.io.read(sys.argv[1], index=0).info['seed'])"
    assert fresh(code, run.partial).split() == ["3", "0"]


def test_the_constraint_is_found_by_name_once():
    from asegen.ase_plugin import register_constraint

    register_constraint()
    assert ase.constraints.__all__.count("SpaceGroup") == 1
    constraint = random_crystal("NaCl", spacegroup=225, seed=0).constraints[0]
    again = dict2constraint(json.loads(json.dumps(constraint.todict())))
    assert isinstance(again, SpaceGroup) and again.sites == constraint.sites
    with pytest.raises(ValueError):
        dict2constraint({"name": "NoSuchConstraint", "kwargs": {}})
