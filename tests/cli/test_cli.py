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

ASEGEN = [sys.executable, "-m", "asegen.cli.main"]


def run(*arguments, check=True, **kwargs):
    done = subprocess.run([*ASEGEN, *map(str, arguments)], capture_output=True, text=True, timeout=300, **kwargs)
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def out(small_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = run("generate", "SrTiO3", "NaCl", "-n", 2, "--seed", 3, "--out", folder, "--checkpoint", small_path)
    return folder, done


def test_generate_writes_everything_it_names(out):
    folder, done = out
    crystals = ase.io.read(folder / "structures.extxyz", index=":")
    assert [len(a) for a in crystals] == [5, 5, 2, 2]
    assert len(list((folder / "cif").glob("*.cif"))) == 4
    for path in (folder / "cif").glob("*.cif"):
        assert ase.io.read(path).get_chemical_formula() in {"O3SrTi", "ClNa"}
    trajectory = ase.io.read(folder / "generation.traj", index=":")
    assert len(trajectory) == 7 and trajectory[-1].info["seed"] == crystals[0].info["seed"]
    assert abs(trajectory[-1].cell.array - crystals[0].cell.array).max() < 1e-4
    assert (folder / "crystals.png").read_bytes().startswith(b"\x89PNG")
    assert "SrTiO3" in done.stdout and "space group" in done.stdout and "Å³/atom" in done.stdout
    assert not [p for p in folder.iterdir() if "unfinished" in p.name or p.name.startswith(".")]


def test_the_same_command_again_finds_everything_done(out, small_path):
    folder, _ = out
    before = (folder / "structures.extxyz").read_text()
    run("generate", "SrTiO3", "NaCl", "-n", 2, "--seed", 3, "--out", folder, "--checkpoint", small_path)
    assert (folder / "structures.extxyz").read_text() == before
    other = run("generate", "NaCl", "--out", folder, "--checkpoint", small_path, check=False)
    assert other.returncode == 1 and "--overwrite" in other.stderr and (folder / "structures.extxyz").read_text() == before


def test_json_for_programs(small_path, tmp_path):
    done = run("generate", "Li2O", "--units", "1,2", "--steps", 3, "--json", "--checkpoint", small_path, cwd=tmp_path)
    result = json.loads(done.stdout)
    assert [len(c["species"]) for c in result["crystals"]] == [3, 6] and result["out"] is None
    assert {"formula", "spacegroup", "volume_per_atom", "shortest_distance", "seed", "cell", "frac_coords"} <= set(result["crystals"][0])
    assert list(tmp_path.iterdir()) == []


def test_de_novo_from_the_command_line(small_path, tmp_path):
    result = json.loads(run("generate", "-n", 3, "--json", "--checkpoint", small_path, cwd=tmp_path).stdout)
    assert len(result["crystals"]) == 3


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


def test_a_killed_run_goes_on_and_ends_the_same(small_path, tmp_path):
    request = ["generate", "NaCl", "-n", "40", "--steps", "60", "--checkpoint", str(small_path), "--batch-size", "4"]
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
