"""The screen from a file to rows, database and pictures."""

import json
import signal
import subprocess
import sys
import time

import ase.db
import ase.io
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from asegen.calculators.potentials import potential
from asegen.errors import AsegenError, DataError, StabilityError
from asegen.metrics.cache import Cache
from asegen.stability import relax, screen
from asegen.stability.entries import Entry
from asegen.stability.screening import Screening


def ordered(kind="L1_0"):
    cell = bulk("Cu", a=3.8, cubic=True)
    cell.symbols = {"L1_0": "CuCuAuAu", "L1_2": "CuAuAuAu"}[kind]
    if kind == "L1_0":
        cell.symbols = ["Cu", "Au", "Au", "Cu"]
    return cell


def crystals():
    shaken = ordered()
    shaken.positions += 0.2  # the same crystal
    close = Atoms("CuAu", positions=[[0] * 3, [0.2, 0, 0]], cell=[4] * 3, pbc=True)
    found = [ordered(), shaken, ordered("L1_2"), Atoms("Cu", cell=[15] * 3, pbc=True), close]
    for seed, atoms in enumerate(found):
        atoms.info.update(seed=seed, checkpoint="test", prototype=f"kind {seed}")
    return found


@pytest.fixture(scope="module")
def elements():
    """Entries of the elements, on EMT's own scale."""
    scale = potential(EMT()).scale
    energies = {symbol: relax(bulk(symbol), EMT()).energy_per_atom for symbol in ("Cu", "Au")}
    return [Entry(symbol, value, scale, "test", f"fcc {symbol}") for symbol, value in energies.items()]


@pytest.fixture(scope="module")
def run(elements, tmp_path_factory):
    folder = tmp_path_factory.mktemp("screen")
    ase.io.write(folder / "in.extxyz", crystals())
    cache = Cache(keep=False)
    stages = []
    found = screen(
        folder / "in.extxyz", EMT(), reference=elements, phonons=1, out=folder / "out", processes=1, cache=cache,
        progress=lambda stage, done, total: stages.append((stage, done, total)),
    )  # fmt: skip
    return folder, found, stages


def test_every_crystal_has_a_row_that_says_how_far_it_came(run):
    _, found, _ = run
    assert isinstance(found, Screening)
    assert [row["status"] for row in found.rows] == ["phonons", "duplicate", "judged", "failed", "failed"]
    assert found.rows[1]["duplicate_of"] == 0
    assert "15.0 Å of vacuum" in found.rows[3]["reason"] and "0.20 Å apart" in found.rows[4]["reason"]
    best = found.rows[found.best[0]]
    assert best["seed"] == 0 and best["checkpoint"] == "test" and best["prototype"] == "kind 0" and best["spacegroup"] == 123
    assert best["formation_energy_per_atom"] == pytest.approx(best["e_above_hull"])  # only the elements compete
    assert best["dynamically_stable"] is True and best["min_frequency"] > 0
    assert set(found.protocol) == {"duplicates", "relaxation", "hull", "phonons"}
    json.dumps(found.rows)


def test_the_best_come_first_with_their_results(run):
    _, found, _ = run
    assert found.best == [0, 2] or found.best == [2, 0]
    energies = [found.rows[i]["e_above_hull"] for i in found.best]
    assert energies == sorted(energies)
    for i in found.best:
        assert found.atoms[i].get_potential_energy() == pytest.approx(found.rows[i]["energy"])


def test_files(run):
    folder, found, stages = run
    rows = [json.loads(line) for line in (folder / "out" / "screen.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4] and all("relaxation" in row["protocol"] for row in rows)
    written = ase.io.read(folder / "out" / "structures.extxyz", index=":")
    assert [a.info["seed"] for a in written] == found.best
    with ase.db.connect(str(folder / "out" / "screen.db")) as database:
        assert [row.row for row in database.select(sort="e_above_hull")] == found.best
        first = next(database.select(sort="e_above_hull"))
        assert first.energy == pytest.approx(found.rows[found.best[0]]["energy"]) and first.data["row"]["seed"] == found.best[0]
    assert (folder / "out" / "phonons" / f"{found.best[0]:04d}_{found.rows[found.best[0]]['formula']}" / "bands.png").exists()
    assert not [p for p in (folder / "out").rglob("*") if p.name.startswith(".")]
    assert ("phonons", 1, 1) in stages and stages[-1][1] == stages[-1][2]


def test_the_same_again_computes_nothing_anew(run, elements):
    folder, found, _ = run
    before = (folder / "out" / "relaxed" / "results.jsonl").read_text()
    begin = time.perf_counter()
    again = screen(folder / "in.extxyz", EMT(), reference=elements, phonons=1, out=folder / "out", processes=1, cache=Cache(keep=False))
    assert again.rows == found.rows and time.perf_counter() - begin < 30
    assert (folder / "out" / "relaxed" / "results.jsonl").read_text() == before
    with pytest.raises(AsegenError, match="results of another run"):
        screen(folder / "in.extxyz", EMT(), reference=elements, out=folder / "out", processes=1, fmax=0.1, cache=Cache(keep=False))


def test_without_hull_the_lowest_polymorph_is_the_measure():
    copper = [bulk("Cu"), Atoms("Cu", cell=[2.4] * 3, pbc=True)]
    found = screen(copper, EMT(), hull=False, phonons=0, processes=1, cache=Cache(keep=False))
    assert found.best == [0, 1] and found.rows[1]["above_lowest"] > 0.1 and "e_above_hull" not in found.rows[0]
    assert set(found.protocol) == {"duplicates", "relaxation"}


def test_what_cannot_be_screened(tmp_path):
    (tmp_path / "bad.extxyz").write_text("nonsense\n")
    with pytest.raises(DataError, match="no crystals to screen"):
        screen(tmp_path / "bad.extxyz", EMT())
    with pytest.raises(StabilityError, match="too rough for phonons"):
        screen([bulk("Cu")], "chgnet")
    with pytest.raises(StabilityError, match="must not be negative"):
        screen([bulk("Cu")], EMT(), within=-1)


def test_a_killed_screen_goes_on(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    many = []
    for _ in range(6):
        atoms = bulk("Si", a=5.4, cubic=True)
        atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
        many.append(atoms)
    ase.io.write(tmp_path / "in.extxyz", many)
    command = [sys.executable, "-m", "asegen.cli.main", "screen", "in.extxyz", "--no-hull", "--phonons", "0", "--out", "out", "--free"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out" / "relaxed" / "results.jsonl"
    for _ in range(1200):
        time.sleep(0.1)
        if journal.exists() and journal.read_text().count("\n") > 1:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_text().splitlines()
    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 6 and rows[0]["status"] in ("relaxed", "duplicate")
    assert journal.read_text().splitlines()[: len(kept) - 1] == kept[:-1] and len(kept) < 7


def test_other_volumes_and_small_distortions_are_no_duplicates():
    far, good, small = bulk("Cu", a=7.5), bulk("Cu", a=3.6), bulk("Cu", a=3.3)
    found = screen([far, good, small, good.copy()], EMT(), hull=False, phonons=0, processes=1, cache=Cache(keep=False))
    assert ["calls" in row for row in found.rows] == [True, True, True, False] and found.rows[3]["duplicate_of"] == 1
    assert len(found.best) == 1  # what they relax to is the same
    cubic = ordered()
    bent = cubic.copy()
    bent.positions[0] += [0.03, 0.0, 0.0]
    found = screen([cubic, bent], EMT(), hull=False, phonons=0, processes=1, cache=Cache(keep=False), symmetry="free", steps=300)
    assert found.rows[1]["calls"] > 0


def test_a_repetition_of_a_crystal_without_result_has_none_either():
    alone = Atoms("Cu", cell=[15] * 3, pbc=True)
    found = screen([alone, alone.copy(), bulk("Cu")], EMT(), hull=False, phonons=0, processes=1, cache=Cache(keep=False))
    assert [row["status"] for row in found.rows] == ["failed", "failed", "relaxed"] and "as crystal 0" in found.rows[1]["reason"]


def test_what_a_screen_writes_can_be_screened_again(run, elements):
    folder, found, _ = run
    again = screen(folder / "out" / "structures.extxyz", EMT(), reference=elements, phonons=0, out=folder / "again", processes=1)
    assert len(again.best) == len(found.best)
    first = ase.io.read(folder / "out" / "structures.extxyz", index=0)
    assert first.info["dynamically_stable"] in (True, "T")
