"""The program as people run it: output, files, errors, kills."""

import errno
import json
import resource
import signal
import subprocess
import sys
import time

import ase.io
import pytest
from ase.build import bulk
from typer.testing import CliRunner

from asegen.cli.generate import alike, chance_text, energy_text, handbook_remarks
from asegen.cli.main import app
from asegen.formulas import formula_of, numbers_of
from asegen.prototypes.model import load_prototypes, packaged_prototypes, save_prototypes
from asegen.report import space_group as group_of
from asegen.starts import seed_of

ASEGEN = [sys.executable, "-m", "asegen.cli.main"]


def run(*arguments, check=True, **kwargs):
    done = subprocess.run([*ASEGEN, *map(str, arguments)], capture_output=True, text=True, timeout=300, **kwargs)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def run_here(*arguments, code=0):
    """The command inside this process: the same output, without the seconds that imports take."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    assert done.exit_code == code, (done.output, done.exception)
    return done


ASKED = ["SrTiO3", "NaCl", "-n", 2, "--units", 1, "--seed", 3, "--checkpoint", "mp20", "--start", "random", "--steps", 12]


@pytest.fixture
def touching(monkeypatch):
    """Atoms may lie on each other: the random network of `small` makes such crystals."""
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = run("generate", *ASKED, "--out", folder)
    return folder, done


def test_generate_writes_everything_it_names(out):
    folder, done = out
    crystals = ase.io.read(folder / "structures.extxyz", index=":")
    assert [len(a) for a in crystals] == [5, 5, 2, 2]
    assert len(list((folder / "cif").glob("*.cif"))) == 4
    for path in (folder / "cif").glob("*.cif"):
        assert ase.io.read(path).get_chemical_formula() in {"O3SrTi", "ClNa"}
    trajectory = ase.io.read(folder / "generation.traj", index=":")
    assert len(trajectory) == 13 and trajectory[-1].info["seed"] == crystals[0].info["seed"]
    assert abs(trajectory[-1].cell.array - crystals[0].cell.array).max() < 1e-4
    assert (folder / "crystals.png").read_bytes().startswith(b"\x89PNG")
    assert "SrTiO3" in done.stdout and "space group" in done.stdout and "Å³/atom" in done.stdout
    assert not [p for p in folder.iterdir() if "unfinished" in p.name or p.name.startswith(".")]


def test_the_same_command_again_finds_everything_done(out, small_path):
    folder, _ = out
    before = (folder / "structures.extxyz").read_text()
    run("generate", *ASKED, "--out", folder)
    assert (folder / "structures.extxyz").read_text() == before
    other = run("generate", "NaCl", "--out", folder, "--checkpoint", small_path, check=False)
    assert other.returncode == 1 and "--overwrite" in other.stderr and (folder / "structures.extxyz").read_text() == before


def test_json_for_programs(small_path, tmp_path):
    done = run("generate", "Li2O", "--units", "1,2", "--steps", 3, "--json", "--checkpoint", small_path, cwd=tmp_path)
    result = json.loads(done.stdout)
    assert [len(c["species"]) for c in result["crystals"]] == [3, 6] and result["out"] is None
    assert {"formula", "spacegroup", "volume_per_atom", "shortest_distance", "seed", "cell", "frac_coords"} <= set(result["crystals"][0])
    assert list(tmp_path.iterdir()) == []


def test_de_novo_from_the_command_line(touching, small_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = json.loads(run_here("generate", "-n", 3, "--json", "--checkpoint", small_path).stdout)
    assert len(result["crystals"]) == 3 and result["empty"] == {}


def test_places_that_stay_empty_are_told_and_found_again(small_path, tmp_path, monkeypatch):
    """Seeds whose crystals are refused leave gaps; the run is the same when it is given again."""
    refused = {seed_of(0, 1), *(seed_of(seed_of(0, 1), k) for k in range(1, 10))}
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "Na and Cl touch" if atoms.info["seed"] in refused else "")
    request = ["generate", "NaCl", "-n", 3, "--steps", 3, "--checkpoint", small_path, "--out", tmp_path / "run"]
    first = run_here(*request).stdout
    assert "1 of 3 crystals could not be made; number 1: Na and Cl touch" in first
    crystals = ase.io.read(tmp_path / "run" / "structures.extxyz", index=":")
    assert [a.info["place"] for a in crystals] == [0, 2] and [a.info["seed"] for a in crystals] == [seed_of(0, 0), seed_of(0, 2)]
    before = (tmp_path / "run" / "structures.extxyz").read_bytes()
    assert run_here(*request).stdout == first and (tmp_path / "run" / "structures.extxyz").read_bytes() == before
    told = json.loads(run_here(*request[:-2], "--json").stdout)
    assert told["empty"] == {"1": "Na and Cl touch"} and len(told["crystals"]) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "Xx2"], "no element 'Xx'"),
        (["generate", "SrTiO3.5"], "fraction"),
        (["generate", "NaCl", "--units", "0"], "positive whole numbers"),
        (["generate", "NaCl", "--units", "99"], "198 atoms"),
        (["generate", "NaCl", "-n", "0"], "n = 0"),
        (["generate", "NaCl", "--checkpoint", "no-such"], "no checkpoint 'no-such'"),
        (["generate", "NaCl", "--device", "abacus"], "unknown device 'abacus'"),
        (["generate", "NaCl", "--steps", "0"], "steps = 0"),
        (["info", "no-such"], "no checkpoint 'no-such'"),
        (["train", "missing.toml", "--data", "x", "--out", "y"], "cannot read recipe"),
        (["data", "convert", "missing.csv", "--out", "z"], "does not exist"),
        (["data", "download", "mystery", "--out", "z"], "unknown data set"),
    ],
)
def test_bad_input_ends_with_a_sentence_and_leaves_nothing(arguments, words, small_path, tmp_path):
    if arguments[0] == "generate" and "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", small_path]
    done = run(*arguments, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert words in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "generated").exists() and not (tmp_path / "z" / "meta.json").exists()


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    request = ["generate", "NaCl", "-n", "40", "--units", "1", "--start", "random", "--checkpoint", "mp20", "--batch-size", "4"]
    whole = tmp_path / "whole"
    run(*request, "--out", whole)
    part = tmp_path / "part"
    process = subprocess.Popen([*ASEGEN, *request, "--out", str(part)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(1200):
        time.sleep(0.05)
        if (part / "unfinished.jsonl").exists() and (part / "unfinished.jsonl").read_text().count("\n") > 4:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (part / "structures.extxyz").exists()
    kept = (part / "unfinished.jsonl").read_text().count("\n") - 1
    assert 0 < kept < 40
    run(*request, "--out", part)
    a, b = (ase.io.read(folder / "structures.extxyz", index=":") for folder in (whole, part))
    assert len(a) == len(b) == 40
    assert all(abs(x.positions - y.positions).max() < 1e-4 for x, y in zip(a, b, strict=True))


def test_ctrl_c_is_one_sentence(small_path, tmp_path):
    request = ["generate", "NaCl", "-n", "100", "--steps", "2000", "--checkpoint", str(small_path), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        [*ASEGEN, *request],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell has it ignored
    )
    for _ in range(400):
        time.sleep(0.05)
        if (tmp_path / "run").exists():
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped by Ctrl-C" in stderr and "Traceback" not in stderr
    assert not (tmp_path / "run" / "structures.extxyz").exists()


def test_a_disk_that_takes_no_more_is_one_sentence(small_path, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))  # no file may grow beyond 300 bytes

    folder = tmp_path / "run"
    done = run("generate", "NaCl", "--checkpoint", small_path, "--out", folder, check=False, preexec_fn=limit)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "asegen: " in done.stderr
    assert not (folder / "structures.extxyz").exists()
    run("generate", "NaCl", "--checkpoint", small_path, "--out", folder)  # and goes on once there is room
    assert len(ase.io.read(folder / "structures.extxyz", index=":")) == 1


def test_a_full_disk_is_named():
    from asegen.cli.speak import sentence_of

    assert "the disk is full: /x" in sentence_of(OSError(errno.ENOSPC, "No space left on device", "/x"))


def test_info_shows_what_a_checkpoint_is(small_path):
    text = run("info", small_path).stdout
    assert "small" in text and "dense" in text and "licence" in text
    assert json.loads(run("info", small_path, "--json").stdout)["name"] == "small"
    assert "packaged checkpoints" in run("info").stdout


def test_train_on_ones_own_cifs_then_generate(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, a in enumerate((5.4, 5.5, 5.6, 5.7)):
        ase.io.write(folder / f"{number}.cif", bulk("NaCl", "rocksalt", a=a))
    (folder / "broken.cif").write_text("data_x\nnothing\n")
    (tmp_path / "my.toml").write_text("steps = 5\nbatch_size = 4\nwarmup = 1\nnetwork_options = { width = 16, layers = 1, heads = 2 }\n")
    done = run("train", tmp_path / "my.toml", "--data", folder, "--out", tmp_path / "out", "--device", "cpu")
    assert "1 bad rows skipped" in done.stderr and "broken.cif" in done.stderr
    checkpoint = tmp_path / "out" / "my.safetensors"
    result = json.loads(run("generate", "NaCl", "--json", "--steps", 3, "--checkpoint", checkpoint).stdout)
    assert result["checkpoint"] == "my"
    refused = run("generate", "KCl", "--json", "--checkpoint", checkpoint, check=False)
    assert "never seen in training" in refused.stderr


def test_data_describe_and_convert(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [bulk("Cu"), bulk("NaCl", "rocksalt", a=5.6)])
    assert json.loads(run("data", "describe", tmp_path / "a.extxyz", "--json").stdout)["count"] == 2
    run("data", "convert", tmp_path / "a.extxyz", "--out", tmp_path / "arrays")
    assert "2 crystals" in run("data", "describe", tmp_path / "arrays").stdout


def test_help_is_fast():
    best = min(_timed() for _ in range(3))
    assert best < 1.5, f"asegen --help took {best:.2f} s; something heavy is imported at the top"


def _timed() -> float:
    start = time.monotonic()
    run("--help")
    return time.monotonic() - start


def test_help_imports_nothing_heavy():
    code = "import sys, asegen.cli.main; print([m for m in ('torch', 'ase', 'pymatgen', 'matplotlib', 'spglib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------------- prototypes and space groups


def test_prototypes_are_ranked_in_a_table(packaged_mp20):
    text = run_here("prototypes", "SrTiO3", "-n", 4, "--model", "mp20").stdout
    best, new = packaged_mp20.rank("SrTiO3", 4)
    assert "prototypes of SrTiO3, model 'mp20'" in text and "Pm-3m Sr:1a Ti:1b O:3c" in text
    assert f"{best[0].probability:.3f} known" in text and f"than all that are known: {new:.3f}" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("│")] == ["1", "2", "3", "4"]
    other = run_here("prototypes", "TiO3Sr", "-n", 4, "--model", "mp20").stdout
    assert "prototypes of TiO3Sr" in other and "Pm-3m Ti:1b O:3c Sr:1a" in other  # elements as typed


def test_prototypes_as_json(packaged_mp20):
    result = json.loads(run_here("prototypes", "Ga2N2", "-n", 5, "--model", "mp20", "--json").stdout)
    candidates, new = packaged_mp20.rank("Ga2N2", 5)
    assert result["formula"] == "Ga2N2" and result["model"] == "mp20" and result["other_prototype"] == pytest.approx(new, abs=1e-5)
    rows = result["prototypes"]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [(r["spacegroup"], r["probability"], r["known"]) for r in rows] == [
        (c.prototype.number, float(f"{c.probability:.6g}"), c.known) for c in candidates
    ]
    assert [r["e_above_hull"] for r in rows] == [round(c.hull, 4) if c.hull_source else None for c in candidates]
    assert rows[0]["e_above_hull_source"] == "published" and rows[0]["units"] == 2 and rows[0]["atoms"] == 4
    assert rows[0]["symbol"] == "P6_3mc" and rows[0]["sites"] == "Ga:2b N:2b"
    assert rows[0]["examples"] == len(candidates[0].prototype.examples)
    assert rows[0]["volume_per_atom"] == pytest.approx(11.4, rel=0.05)
    again = json.loads(run_here("prototypes", "GaN", "-n", 5, "--model", packaged_prototypes()["mp20"], "--json").stdout)
    assert again["prototypes"] == rows  # the same composition
    two = json.loads(run_here("prototypes", "GaN", "--units", 2, "--model", "mp20", "--json").stdout)["prototypes"]
    assert two and {row["atoms"] for row in two} == {4}


def test_prototypes_of_one_group_and_new_ones():
    rows = json.loads(run_here("prototypes", "SrTiO3", "--spacegroup", "P4mm", "--model", "mp20", "--json").stdout)["prototypes"]
    assert rows and {row["spacegroup"] for row in rows} == {99} and [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    request = ["prototypes", "CsCl", "--model", "mp20", "--diversity", 0, "--json"]
    known, new = (json.loads(run_here(*request, *extra).stdout) for extra in ([], ["--new"]))
    assert known["prototypes"][0]["known"]
    chances = [row["probability"] for row in new["prototypes"]]
    assert chances == sorted(chances, reverse=True)
    assert "no known prototype of Li3Bi7O5 in model 'mp20'" in run_here("prototypes", "Li3Bi7O5", "--model", "mp20").stdout
    assert "no known prototype of SrTiO3 in Ia-3d" in run_here("prototypes", "SrTiO3", "--spacegroup", 230, "--model", "mp20").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prototypes", "Xx2", "--model", "mp20"], "no element 'Xx'"),
        (["prototypes", "NaCl", "-n", "0", "--model", "mp20"], "n = 0"),
        (["prototypes", "NaCl", "--units", "0", "--model", "mp20"], "--units 0 should be positive"),
        (["prototypes", "NaCl", "--spacegroup", "Fm3m", "--model", "mp20"], "Fm-3m"),
        (["prototypes", "NaCl", "--diversity", "3", "--model", "mp20"], "diversity = 3"),
        (["prototypes", "NaCl", "--model", "no-such"], "no prototype model 'no-such'"),
        (["generate", "NaCl", "--spacegroup", "231"], "no space group 231"),
        (["generate", "NaCl", "--units", "1", "--spacegroup", "Pnma"], "Pnma"),
        (["generate", "NaCl", "--order", "alphabetical"], "order = 'alphabetical'"),
        (["generate", "NaCl", "--sites", "Na:4a Cl:4b"], "need a space group"),
        (["generate", "NaCl", "--spacegroup", "225", "--sites", "Na:4a Cl:8c"], "the sites hold"),
        (["generate", "NaCl", "--start", "nowhere"], "start = 'nowhere'"),
        (["generate", "NaCl", "--start", "prototypes"], "comes without a prototype model"),
        (["generate", "--spacegroup", "225"], "needs a formula"),
        (["generate", "NaCl", "--prototypes", "mp20", "--refine", "77"], "refine = 77"),
        (["generate", "NaCl", "--prototypes", "mp20", "--diversity", "7"], "diversity = 7"),
        (["generate", "NaCl", "--prototypes", "no-such"], "no prototype model 'no-such'"),
    ],
)
def test_what_cannot_be_ends_with_a_sentence_and_leaves_nothing(arguments, words, small_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "generate":
        arguments = [*arguments, "--checkpoint", small_path]
    done = run_here(*arguments, code=1)
    assert done.stderr.startswith("asegen: ") and words in done.stderr and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_generate_ranks_prototypes_and_writes_them(small_path, tmp_path):
    folder = tmp_path / "run"
    request = ["generate", "SrTiO3", "-n", 3, "--prototypes", "mp20", "--checkpoint", small_path, "--out", folder]
    text = run_here(*request).stdout
    assert "Pm-3m Sr:1a Ti:1b O:3c" in text and "1 known, with their own cells" in text and "meV/atom above the convex hull" in text
    crystals = ase.io.read(folder / "structures.extxyz", index=":")
    assert [a.info["rank"] for a in crystals] == [1, 2, 3] and crystals[0].info["prototype"] == "Pm-3m Sr:1a Ti:1b O:3c"
    assert group_of(crystals[0]) == 221 and crystals[0].info["start"] == "prototype"
    assert len(list((folder / "cif").glob("*.cif"))) == 3
    assert not (folder / "generation.traj").exists() and "generation.traj" not in text  # nothing was walked
    assert run_here(*request).stdout == text
    for other in (["--new"], ["--diversity", 0.1], ["--refine", 0.05]):
        assert "--overwrite" in run_here(*request, *other, code=1).stderr


def test_overwriting_leaves_nothing_of_the_run_before(small_path, tmp_path):
    request = ["generate", "NaCl", "--checkpoint", small_path, "--out", tmp_path / "run"]
    assert "generation.traj" in run_here(*request, "--start", "random").stdout
    assert "generation.traj" not in run_here(*request, "--prototypes", "mp20", "--overwrite").stdout
    assert not (tmp_path / "run" / "generation.traj").exists()


def test_generate_in_a_group_on_sites(small_path, tmp_path):
    """In its own process: the trajectory carries the constraint, and any ASE program opens it."""
    request = ["--spacegroup", "Pnma", "--sites", "Fe:4c,4a O:8d", "-n", 2, "--checkpoint", small_path]
    done = run("generate", *request, cwd=tmp_path)
    (folder,) = (tmp_path / "generated").iterdir()
    assert folder.name == "Fe-4c-4a-O-8d-Pnma-seed0" and str(folder.name) in done.stdout
    assert "2 on random sites of a space group" in done.stdout
    crystals = ase.io.read(folder / "structures.extxyz", index=":")
    for atoms in crystals:
        assert atoms.get_chemical_formula() == "Fe8O8" and atoms.info["spacegroup"] == 62
        assert group_of(atoms, symprec=1e-3) == 62
    frames = ase.io.read(folder / "generation.traj", index=":")
    assert len(frames) == 7 and frames[0].constraints[0].group.number == 62
    assert sorted(frames[0].constraints[0].sites) == [("Fe", "4a"), ("Fe", "4c"), ("O", "8d")]
    assert abs(frames[-1].cell.array - crystals[0].cell.array).max() < 1e-3


def test_json_says_what_each_crystal_started_from(touching, small_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = ["generate", "CsCl", "-n", 2, "--json", "--steps", 3, "--checkpoint", small_path]
    ranked = json.loads(run_here(*base, "--prototypes", "mp20").stdout)
    assert ranked["prototypes"] == "mp20" and ranked["out"] is None
    first = ranked["crystals"][0]
    assert first["rank"] == 1 and first["start"] == "prototype" and first["known"] and 0 < first["probability"] < 1
    assert first["prototype"].split()[1].startswith("Cs:") and first["e_above_hull_source"] == "published"
    fresh = json.loads(run_here(*base, "--prototypes", "mp20", "--new", "--diversity", 0).stdout)["crystals"]
    assert fresh[0]["probability"] >= fresh[1]["probability"]
    random = json.loads(run_here(*base, "--prototypes", "mp20", "--start", "random").stdout)
    assert random["prototypes"] is None and "rank" not in random["crystals"][0]
    sites = json.loads(run_here(*base, "--spacegroup", "P4/nmm", "--units", 2).stdout)
    assert [c["start"] for c in sites["crystals"]] == ["sites", "sites"] and "probability" not in sites["crystals"][0]
    assert list(tmp_path.iterdir()) == []


def test_the_table_says_what_is_known_of_each_crystal(small_path, tmp_path, packaged_mp20):
    request = ["generate", "ZrO2", "-n", 8, "--prototypes", "mp20", "--checkpoint", small_path, "--out", tmp_path / "run"]
    text = run_here(*request).stdout
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    candidates = packaged_mp20.rank("ZrO2", 8)[0]
    assert len(rows) == len(candidates) == 8 and {c.known for c in candidates} == {True, False}
    for k, (row, candidate) in enumerate(zip(rows, candidates, strict=True)):
        number, formula, chance, energy, prototype, volume = (cell.strip() for cell in row)
        content = formula_of(numbers_of("ZrO2", candidate.units))
        assert (number, formula) == (str(k), content) and prototype.split()[1].startswith("Zr:")
        assert chance == chance_text(candidate.probability) + (" known" if candidate.known else "")
        mark = {"published": "", "computed": "*", "predicted": "~"}[candidate.hull_source]
        assert energy.endswith(mark) and float(energy.rstrip("~*")) == pytest.approx(1000 * candidate.hull, abs=0.51)
        assert float(volume) == pytest.approx(candidate.volume / sum(candidate.prototype.counts), abs=0.0051)
    known = sum(c.known for c in candidates)
    assert f"{known} known, with their own cells (Materials Project, CC BY 4.0); --new leaves them out" in text
    assert "as published (PBE, MP2020 corrections); ~ predicted from like crystals" in text and "potential 7net-0" not in text
    for line in ("structures.extxyz", "cif/", "crystals.png"):
        assert line in text
    fresh = run_here(*request[:-1], tmp_path / "new", "--new").stdout
    assert " known" not in fresh.split("meV/atom above")[0].split("Å³/atom", 1)[1] and "with their own cells" not in fresh


def test_the_ranking_s_table_says_what_is_known_too(packaged_mp20):
    text = run_here("prototypes", "ZrO2", "-n", 8, "--model", "mp20").stdout
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    candidates = packaged_mp20.rank("ZrO2", 8)[0]
    assert [row[0] for row in rows] == [str(k) for k in range(1, 9)]
    assert [row[1] for row in rows] == [chance_text(c.probability) + (" known" if c.known else "") for c in candidates]
    assert [int(row[4]) for row in rows] == [c.units for c in candidates] and len(set(row[4] for row in rows)) > 1
    assert [int(row[5]) for row in rows] == [len(c.prototype.examples) for c in candidates]
    assert "meV/atom above the convex hull: as published" in text
    likely = run_here("prototypes", "ZrO2", "-n", 8, "--model", "mp20", "--order", "likely").stdout
    assert "order 'likely'" in likely and likely != text and "order 'stable'" in text


def test_orders_and_units_reach_the_ranking(small_path, packaged_mp20):
    base = ["generate", "Zr2O4", "-n", 6, "--json", "--prototypes", "mp20", "--checkpoint", small_path]
    options = [({}, []), ({"order": "likely"}, ["--order", "likely", "--start", "prototypes"]), ({"units": 1}, ["--units", 1])]
    options += [({"new": True}, ["--new"]), ({"diversity": 0.0}, ["--diversity", 0])]
    for asked, typed in options:
        found = json.loads(run_here(*base, *typed).stdout)["crystals"]
        candidates = packaged_mp20.rank("Zr2O4", 6, **asked)[0]
        assert [c["probability"] for c in found] == pytest.approx([c.probability for c in candidates], rel=1e-5), typed
        assert [c["known"] for c in found] == [c.known for c in candidates]
        assert [len(c["species"]) for c in found] == [sum(c.prototype.counts) for c in candidates]
        assert [c.get("e_above_hull_source", "") for c in found] == [c.hull_source for c in candidates]
        assert all(list(dict.fromkeys(c["species"])) == ["Zr", "O"] for c in found)
    two = json.loads(run_here(*base, "--units", "1,2").stdout)["crystals"]
    assert [len(c["species"]) for c in two] == [6] * 6 + [12] * 6


def test_a_run_in_which_nothing_could_be_made_ends_with_a_sentence(small_path, tmp_path, monkeypatch):
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "Na and Cl touch")
    request = ["generate", "NaCl", "-n", 2, "--steps", 3, "--checkpoint", small_path, "--out", tmp_path / "run"]
    done = run_here(*request, code=1)
    assert done.stderr.strip() == "asegen: 2 of 2 crystals could not be made; number 0: Na and Cl touch"
    assert not (tmp_path / "run" / "structures.extxyz").exists()


def test_the_trajectory_is_that_of_the_crystal_that_came_out(small_path, tmp_path, monkeypatch):
    """The first try put atoms on each other: what is shown is the second one."""
    monkeypatch.setattr("asegen.generation.too_close", lambda atoms: "touch" if atoms.info["seed"] == seed_of(0, 0) else "")
    request = ["generate", "NaCl", "--units", 1, "--checkpoint", small_path, "--out", tmp_path / "run"]
    run_here(*request)
    (crystal,) = ase.io.read(tmp_path / "run" / "structures.extxyz", index=":")
    last = ase.io.read(tmp_path / "run" / "generation.traj", index="-1")
    assert crystal.info["tries"] == 2 and last.info["seed"] == crystal.info["seed"] == seed_of(seed_of(0, 0), 1)
    assert abs(last.cell.array - crystal.cell.array).max() < 1e-3


@pytest.mark.parametrize(
    ("probability", "text"), [(0.95, "0.950"), (0.0314, "0.031"), (0.001, "0.001"), (0.00094, "9e-4"), (3.2e-7, "3e-7"), (4e-12, "4e-12")]
)
def test_probabilities_in_tables(probability, text):
    assert chance_text(probability) == text


def test_energies_in_tables():
    for source, text in (("published", "12"), ("computed", "12*"), ("predicted", "12~")):
        assert energy_text({"e_above_hull": 0.0123, "e_above_hull_source": source}) == text
    assert energy_text({}) == "-"


def test_a_first_place_that_is_not_that_of_the_lowest_energy_is_explained():
    def crystal(formula, rank, energy=None, **info):
        atoms = bulk(formula, "rocksalt", a=5.0)
        atoms.info = {"rank": rank, "known": True, **info} | ({} if energy is None else {"e_above_hull": energy})
        return atoms

    low, high = crystal("NaCl", 2, 0.0), crystal("NaCl", 1, 0.04)
    assert handbook_remarks([crystal("NaCl", 1, 0.0), crystal("NaCl", 2, 0.04)]) == []
    (line,) = handbook_remarks([high, low])
    assert line.startswith("0 is first because it was observed: PBE's energies")
    (line,) = handbook_remarks([crystal("KBr", 1, 0.0), crystal("NaCl", 1, 0.04, handbook=True), low])
    assert line.startswith("1 is first because handbooks give it at ambient conditions")
    # of another formula, without an energy, or predicted without a handbook: no remark
    assert handbook_remarks([high, crystal("KBr", 2, 0.0)]) == [] and handbook_remarks([high, crystal("NaCl", 2)]) == []
    assert handbook_remarks([crystal("NaCl", 1, 0.04, known=False), low]) == []
    assert len(handbook_remarks([a for k in range(5) for a in (high, low)])) == 3
    assert alike(high, bulk("NaCl", "rocksalt", a=5, cubic=True)) and not alike(high, bulk("KBr", "rocksalt", a=5))


def test_the_handbook_s_first_place_is_told(small_path, tmp_path):
    """A model whose handbook asks for a group above the lowest one."""
    source = load_prototypes("mp20")
    header = {key: value for key, value in source.header.items() if key != "format"} | {"handbook": {"ClCs": [221]}}
    plain = source.rank("CsCl")[0]
    assert [c.prototype.number for c in plain[:2]] == [225, 221] and plain[0].known and plain[1].known
    save_prototypes(tmp_path / "book.safetensors", source.table, source.ranker, header)
    request = ["generate", "CsCl", "-n", 3, "--prototypes", tmp_path / "book.safetensors", "--checkpoint", small_path]
    text = run_here(*request, "--out", tmp_path / "run").stdout
    assert "0 is first because handbooks give it at ambient conditions" in text
    crystals = json.loads(run_here(*request, "--json").stdout)["crystals"]
    assert crystals[0]["spacegroup"] == 221 and crystals[0]["handbook"] is True
    assert not any("handbook" in crystal for crystal in crystals[1:])
    chances = [crystal["probability"] for crystal in crystals]
    assert chances == sorted(chances, reverse=True)
    likely = json.loads(run_here(*request, "--order", "likely", "--start", "prototypes", "--json").stdout)["crystals"]
    assert not any("handbook" in crystal for crystal in likely)
    written = ase.io.read(tmp_path / "run" / "structures.extxyz", index=":")
    assert written[0].info["handbook"] and written[0].info["e_above_hull"] > written[1].info["e_above_hull"]


def test_a_checkpoint_without_prototypes_says_that_it_starts_from_random_atoms(small_path, tmp_path):
    text = run_here("generate", "NaCl", "--checkpoint", small_path, "--out", tmp_path / "a").stdout
    assert "started from random atoms: no prototype model belongs to this checkpoint" in text
    asked = run_here("generate", "NaCl", "--start", "random", "--checkpoint", small_path, "--out", tmp_path / "b").stdout
    assert "no prototype model" not in asked


def test_info_shows_what_a_prototype_model_is():
    path = packaged_prototypes()["mp20"]
    text = run_here("info", path).stdout
    data = load_prototypes(path).header["data"]
    assert "votes of known compositions" in text and f"{data['prototypes']} prototypes from {data['count']} crystals" in text
    assert data["licence"] in text
    header = json.loads(run_here("info", path, "--json").stdout)
    assert header["system"] == "prototypes" and header["name"] == "mp20"
    listed = run_here("info").stdout
    assert "packaged prototype models" in listed and str(data["prototypes"]) in listed
    assert json.loads(run_here("info", "--json").stdout)["prototype models"]["mp20"]["data"] == data


def test_train_a_prototype_model_then_rank_and_generate(small_path, tmp_path):
    names = [("LiF", 4.0), ("LiCl", 5.1), ("NaF", 4.6), ("NaCl", 5.64), ("KF", 5.3), ("KCl", 6.3), ("MgO", 4.2), ("CaO", 4.8)]
    ase.io.write(tmp_path / "salts.extxyz", [bulk(name, "rocksalt", a=a) for name, a in names])
    ase.io.write(tmp_path / "others.extxyz", [bulk(n, "cesiumchloride", a=a) for n, a in (("CsCl", 4.1), ("CsBr", 4.3), ("TlI", 4.2))])
    (tmp_path / "mine.toml").write_text('system = "prototypes"\nkernel_epochs = 1\nepochs = 1\nnetworks = 1\nprocesses = 1\n')
    data = [option for name in ("salts", "others") for option in ("--data", tmp_path / f"{name}.extxyz")]
    request = ["train", tmp_path / "mine.toml", *data, "--out", tmp_path / "out"]
    done = run_here(*request)
    model = tmp_path / "out" / "mine.safetensors"
    assert "11 crystals" in done.stderr and "2 prototypes" in done.stderr and "--prototypes" in done.stderr
    before = model.read_bytes()
    assert "--fresh" in run_here(*request, code=1).stderr and model.read_bytes() == before
    assert "2 prototypes" in run_here(*request, "--fresh").stderr
    rows = json.loads(run_here("prototypes", "NaBr", "--model", model, "--json").stdout)["prototypes"]
    assert {row["spacegroup"] for row in rows} == {225, 221} and sum(row["examples"] for row in rows) == 11
    result = json.loads(run_here("generate", "KBr", "--prototypes", model, "--checkpoint", small_path, "--json").stdout)
    assert result["prototypes"] == "mine" and result["crystals"][0]["start"] == "prototype"
    assert "unknown system" not in run_here("info", model).stdout
    (tmp_path / "mine.toml").write_text('system = "prototypes"\nsteps = 3\n')
    assert "unknown entry 'steps'" in run_here(*request, code=1).stderr


def test_a_finished_run_given_again_prints_the_same_json(tmp_path):
    request = ["generate", "MgO", "-n", 3, "--checkpoint", "mp20", "--out", tmp_path / "run", "--json"]
    first, again = (json.loads(run_here(*request).stdout)["crystals"] for _ in range(2))
    assert [{k: c[k] for k in ("rank", "known", "seed", "e_above_hull", "prototype")} for c in first] == [
        {k: c[k] for k in ("rank", "known", "seed", "e_above_hull", "prototype")} for c in again
    ]
