import json

import ase.io
import numpy as np
import pytest

from asegen import random_crystal
from asegen.errors import AsegenError
from asegen.store import RunFolder, from_json, to_json

REQUEST = {"formula": ["NaCl"], "n": 3}


def test_finished_crystals_survive_a_kill(tmp_path):
    crystals = [random_crystal("NaCl", seed=s) for s in range(3)]
    run = RunFolder(tmp_path / "run", REQUEST)
    run.add([(0, crystals[0])])
    run.add([(2, crystals[2])])
    with open(run.partial, "a") as stream:
        stream.write('{"position": 1, "numb')  # killed while writing
    again = RunFolder(tmp_path / "run", REQUEST)
    found = again.done()
    assert sorted(found) == [0, 2] and (found[2].positions == crystals[2].positions).all()
    again.add([(1, crystals[1])])
    assert sorted(again.done()) == [0, 1, 2]
    again.finish([again.done()[k] for k in range(3)])
    assert not again.partial.exists()
    written = ase.io.read(again.final, index=":")
    assert [a.info["seed"] for a in written] == [0, 1, 2]
    assert np.allclose(written[1].positions, crystals[1].positions, atol=1e-7)
    assert len(RunFolder(tmp_path / "run", REQUEST).done()) == 3


def test_results_of_another_request_are_not_touched(tmp_path):
    run = RunFolder(tmp_path / "run", REQUEST)
    run.add([(0, random_crystal("NaCl", seed=0))])
    with pytest.raises(AsegenError, match="results of another run"):
        RunFolder(tmp_path / "run", {**REQUEST, "n": 4}).done()
    run.finish([random_crystal("NaCl", seed=0)])
    with pytest.raises(AsegenError, match="--overwrite"):
        RunFolder(tmp_path / "run", {**REQUEST, "n": 4})
    assert RunFolder(tmp_path / "run", {**REQUEST, "n": 4}, overwrite=True).done() == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(AsegenError, match="is a file"):
        RunFolder(tmp_path / "file", REQUEST)


def test_files_that_a_killed_run_had_begun_do_not_stay(tmp_path):
    begun = [tmp_path / f".{name}-x1y2z3ab" for name in ("crystals.png", "structures.extxyz", "unfinished.jsonl")]
    for path in [*begun, tmp_path / ".mine-x1y2z3ab"]:
        path.write_text("half")
    run = RunFolder(tmp_path, REQUEST)
    run.finish([random_crystal("NaCl", seed=0)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine-x1y2z3ab", "structures.extxyz"]


def test_json_keeps_every_bit():
    atoms = random_crystal("SrTiO3", seed=1)
    position, again = from_json(json.loads(json.dumps(to_json(7, atoms))))
    assert position == 7 and (again.positions == atoms.positions).all() and (again.cell.array == atoms.cell.array).all()
    assert again.info == atoms.info
