"""Everything in one go, from Python and from the command line."""

import csv
import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from gallery_of_crystals import odd, rattled, sane
from rich.console import Console
from typer.testing import CliRunner

from asegen.cli.evaluate import _print
from asegen.cli.main import app
from asegen.datasets.writers import write_crystals
from asegen.metrics import Cache, crystal_set, evaluate, match
from asegen.metrics.plots import write_report

KEYS = [
    "n", "validity.structure", "validity.composition", "coverage.recall", "coverage.precision", "distributions.density",
    "distributions.n_elements", "diversity.structure", "diversity.composition", "frechet.crystalnn", "uniqueness", "novelty",
    "space_groups.share_p1", "match.rate", "match.rms", "match.strict_01", "match.strict_02",
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Generated, reference and training crystals as files."""
    folder = tmp_path_factory.mktemp("sets")
    truth = sane()
    answers = [rattled(a, i, 0.05) for i, a in enumerate(truth)]
    for i, atoms in enumerate(answers):
        atoms.info["e_above_hull"] = 0.02 * i
    ase.io.write(folder / "generated.extxyz", answers)
    ase.io.write(folder / "reference.extxyz", truth)
    ase.io.write(folder / "train.extxyz", truth[::2])
    ase.io.write(folder / "seven.extxyz", truth[:7])
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_json_has_every_key(files, tmp_path):
    tasks = "validity,coverage,distributions,diversity,frechet,uniqueness,novelty,space_groups,match,sun"
    found = run(
        files / "generated.extxyz", "--reference", files / "reference.extxyz", "--train", files / "train.extxyz", "--tasks", tasks,
        "--json", "--cache", tmp_path / "cache", "--out", tmp_path / "out", "--e-above-hull", "e_above_hull",
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert [key for key in KEYS if not isinstance(values.get(key), (int, float))] == []
    assert values["validity"]["structure"] == values["validity.structure"] == 1.0
    assert values["match.strict_01"] == values["match"]["strict_01"] == 1.0
    assert values["n"] == 12 and values["uniqueness"] == 1.0 and values["novelty"] == 0.5
    assert values["sun.metastable_sun"] == pytest.approx(np.mean([i % 2 == 1 and 0.02 * i <= 0.1 for i in range(12)]))
    assert set(values["protocols"]) == set(tasks.split(","))
    assert all("stol" in values["protocols"][task] for task in ("match", "uniqueness", "novelty"))
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "metrics.json", "crystals.csv", "distributions.png", "space_groups.png", "rms.png", "e_above_hull.png",
    }  # fmt: skip
    lines = (tmp_path / "out" / "crystals.csv").read_text().splitlines()
    assert len(lines) == 13 and lines[0].startswith("row,name,formula,error,valid_structure")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == values


def test_a_tensor_file_brings_its_own_reference(files, tmp_path):
    """Two evaluations of the same crystals, and the true structures beside them, as DiffCSP writes them."""
    truth = sane()[:5]
    stretched = [a.copy() for a in truth]
    for atoms in stretched:
        atoms.set_cell(atoms.cell.array * [1, 1, 3], scale_atoms=True)
    write_crystals([*stretched, *truth], tmp_path / "eval_diff.pt", samples=2)
    write_crystals(truth, tmp_path / "truth.pt")
    both = torch.load(tmp_path / "eval_diff.pt", weights_only=True)
    both["input_data_batch"] = {k: v[0] for k, v in torch.load(tmp_path / "truth.pt", weights_only=True).items()}
    torch.save(both, tmp_path / "eval_diff.pt")
    found = run(tmp_path / "eval_diff.pt", "--tasks", "match", "--json", "--no-cache")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert values["match.rate"] == 1.0 and values["match"]["best_of"] == 2
    assert "true structures in eval_diff.pt" in values["settings"]["reference"]
    first = json.loads(run(tmp_path / "eval_diff.pt", "--tasks", "match", "--json", "--no-cache", "--best-of", 1).stdout)
    assert first["match.rate"] == 0.0 and first["match.rms"] is None and "match.rms" in first["missing"]


def test_a_table_for_people(files):
    found = run(files / "generated.extxyz", "--no-cache", "--tasks", "validity,uniqueness,space_groups")
    assert found.exit_code == 0, found.output
    assert "validity.structure" in found.stdout and "1.0000" in found.stdout
    assert "StructureMatcher(ltol=0.2" in found.stdout


def test_what_cannot_be_computed_says_why(files):
    found = evaluate(files / "generated.extxyz", tasks=None)
    assert set(found.results) == {"validity", "diversity", "uniqueness", "space_groups"}
    assert "reference" in found.missing["coverage"] and "training" in found.missing["novelty"]
    assert found.missing["space_groups.distance"] == "no reference set was given" and "space_groups.reference_numbers" not in found.missing
    one = evaluate([bulk("Cu")], sane(), tasks=["diversity", "frechet"])
    assert one.numbers()["diversity.structure"] is None and "two" in one.missing["diversity.structure"]


def test_a_table_of_no_crystals(tmp_path):
    (tmp_path / "empty.extxyz").write_text("")
    found = run(tmp_path / "empty.extxyz", "--no-cache", "--json")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert values["n"] == 0 and values["validity.structure"] is None and values["uniqueness"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such-file.cif"], "does not exist"),
        (["generated.extxyz", "--tasks", "beauty"], "unknown task 'beauty'"),
        (["generated.extxyz", "--tasks", "coverage"], "needs a reference"),
        (["generated.extxyz", "--tasks", "novelty"], "--train"),
        (["generated.extxyz", "--data-set", "oqmd"], "mp20"),
        (["generated.extxyz", "--reference", "seven.extxyz", "--tasks", "match,validity"], "one for each row"),
        (["generated.extxyz", "--samples", "3", "--reference", "reference.extxyz", "--tasks", "match"], "row of the reference"),
        (["generated.extxyz", "--train", "train.extxyz", "--e-above-hull", "nothing"], "number named 'nothing'"),
        (["generated.extxyz", "--reference", "reference.extxyz", "--energy", "enrgy"], "number named 'enrgy'"),
        (["generated.extxyz", "--reference", "reference.extxyz", "--energy", "energy"], "energy_per_atom"),
        (["generated.extxyz", "--reference", "reference.extxyz", "--tasks", "match", "--best-of", "2"], "holds 1 answer to each"),
        (["generated.extxyz", "--reference", "reference.extxyz", "--tasks", "match", "--best-of", "0"], "best of 0"),
        (["generated.extxyz", "--samples", "0"], "0 samples"),
        (["generated.extxyz", "--time-limit", "0"], "above 0"),
        (["generated.extxyz", "--time-limit", "inf"], "above 0"),
        (["generated.extxyz", "--cutoffs", "0.4"], "two numbers"),
        (["generated.extxyz", "--out", "generated.extxyz"], "File exists"),
    ],
)
def test_errors_are_one_sentence(files, arguments, sentence, monkeypatch):
    for compute in ("fingerprints", "match", "uniqueness"):  # said before anything is computed
        monkeypatch.setattr(f"asegen.metrics.evaluation.{compute}", lambda *a, **k: pytest.fail("computed"))
    found = run(*(files / a if a.endswith((".extxyz", ".cif")) else a for a in arguments), "--no-cache")
    assert found.exit_code == 1
    assert sentence in found.output.replace("\n", " ") and "Traceback" not in found.output


def test_crystals_that_are_all_broken_have_bad_numbers_and_references_are_refused(files, tmp_path):
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a nonsense\n")
    found = run(tmp_path / "bad.cif", "--reference", files / "reference.extxyz", "--train", files / "train.extxyz", "--no-cache", "--json")
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    zero = (
        "validity.structure",
        "validity.both",
        "coverage.recall",
        "coverage.precision",
        "uniqueness.share_of_all",
        "novelty.share_of_all",
    )
    assert [values[name] for name in zero] == [0.0] * len(zero) and values["unreadable"] == 1
    for option in ("--reference", "--train"):
        found = run(files / "generated.extxyz", option, tmp_path / "bad.cif", "--no-cache")
        assert found.exit_code == 1 and "none of its 1 entries is a crystal" in found.output


def test_odd_crystals_are_counted(files, tmp_path):
    strange = list(odd().values())
    found = evaluate(strange, files / "reference.extxyz", files / "train.extxyz")
    assert found.n == len(strange) and found.unreadable == 2
    written = write_report(found, tmp_path)
    assert all(path.stat().st_size > 0 for path in written)
    assert json.loads((tmp_path / "metrics.json").read_text())["validity"]["reasons"]["atoms closer than 0.5 Å"] == 2
    assert len((tmp_path / "crystals.csv").read_text().splitlines()) == len(strange) + 1


def test_samples_are_drawn_with_the_seed(files):
    first, again, other = (evaluate(files / "generated.extxyz", tasks=["validity"], samples=5, seed=s) for s in (1, 1, 2))
    names = [[row.name for row in found.crystals] for found in (first, again, other)]
    assert len(names[0]) == 5 and names[0] == names[1] != names[2]


def test_a_killed_evaluation_goes_on_from_the_cache(files, tmp_path):
    """The first half is computed by a process that kills itself; the second run computes the rest only."""
    program = (
        "import os, signal, sys\n"
        "from asegen.metrics import Cache, crystal_set, fingerprints\n"
        "def stop(what, done, total):\n"
        "    if done >= 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "fingerprints(crystal_set(sys.argv[1]), cache=Cache(sys.argv[2]), processes=1, progress=stop)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(files / "generated.extxyz"), str(tmp_path)], check=False)
    assert killed.returncode == -9
    seen = []
    evaluate(
        files / "generated.extxyz", tasks=["diversity"], cache=Cache(tmp_path), processes=1,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )  # fmt: skip
    assert [s for s in seen if s[0] == "fingerprints"] == [("fingerprints", 4, 4)]


def test_same_numbers_with_any_number_of_processes(files):
    given = crystal_set(files / "generated.extxyz")
    one, three = (evaluate(given, files / "reference.extxyz", files / "train.extxyz", processes=p).numbers() for p in (1, 3))
    assert one == three


def test_own_output_is_no_crystal(tmp_path):
    write_crystals(sane()[:3], tmp_path / "cifs")
    first, second = (
        json.loads(run(tmp_path / "cifs", "--out", tmp_path / "cifs" / "results", "--no-cache", "--json").stdout) for _ in "12"
    )
    assert first["n"] == second["n"] == 3 and first["settings"]["ignored"] == []
    assert {entry.split(":")[0] for entry in second["settings"]["ignored"]} >= {"metrics.json", "crystals.csv"}
    assert "ignored, for they hold no crystals" in run(tmp_path / "cifs", "--no-cache", "--tasks", "space_groups").stdout


def with_truth(path, answers, truth, samples=1):
    """A tensor file of DiffCSP: generated crystals, and the true ones beside them."""
    write_crystals(answers, path, samples=samples)
    write_crystals(truth, path.with_name("truth.pt"))
    content = torch.load(path, weights_only=True)
    content["input_data_batch"] = {key: value[0] for key, value in torch.load(path.with_name("truth.pt"), weights_only=True).items()}
    torch.save(content, path)
    return path


def test_the_truth_of_a_reference_file_is_the_reference(tmp_path):
    truth = sane()[:5]
    wrong = [bulk("Cu")] * 5
    path = with_truth(tmp_path / "eval_recon.pt", wrong, truth)
    write_crystals(truth, tmp_path / "mine.pt")
    found = json.loads(run(tmp_path / "mine.pt", "--reference", path, "--tasks", "match,coverage", "--no-cache", "--json").stdout)
    assert found["match.rate"] == found["coverage.recall"] == 1.0
    assert found["settings"]["reference"] == "true structures in eval_recon.pt"
    assert match(truth, path).rate == 1.0
    content = torch.load(path, weights_only=True)
    content["input_data_batch"]["lengths"] = torch.ones(2, 3)
    torch.save(content, path)
    assert "do not belong together" in run(path, "--no-cache").output


def test_sets_are_measured_on_the_first_of_several_evaluations(tmp_path):
    truth = sane()[:5]
    path = with_truth(tmp_path / "eval_diff.pt", [*truth, *[truth[0]] * 5], truth, samples=2)
    tasks = "validity,uniqueness,coverage,match"
    found = json.loads(run(path, "--tasks", tasks, "--no-cache", "--json", "--out", tmp_path / "out").stdout)
    assert found["n"] == found["validity"]["n"] == 5 and found["uniqueness"] == 1.0
    assert found["match"]["best_of"] == 2 and "best of 2 answers" in found["protocols"]["match"]
    assert found["settings"]["evaluations"].startswith("2 in the file: match uses all")
    assert len((tmp_path / "out" / "crystals.csv").read_text().splitlines()) == 6
    assert "best of 3 is not possible" in run(path, "--tasks", "match", "--best-of", 3, "--no-cache").output


def test_names_of_training_crystals_stay_out_of_the_json(files):
    values = evaluate(files / "generated.extxyz", train=files / "train.extxyz", tasks=["novelty"]).to_dict()
    assert "training_names" not in json.dumps(values) and values["novelty"] == 0.5


def test_cutoffs_may_be_given(files):
    arguments = (files / "generated.extxyz", "--reference", files / "reference.extxyz", "--tasks", "coverage", "--json", "--no-cache")
    values = json.loads(run(*arguments, "--cutoffs", "1e-9,10").stdout)
    assert values["coverage.recall"] < 1.0 and "within 1e-09" in values["protocols"]["coverage"]
    assert values["settings"]["cutoffs"] == [1e-9, 10.0]


def test_rows_of_the_table_are_unambiguous(tmp_path):
    crystals = [bulk("Cu"), bulk("Si"), bulk("Cu", a=3.7)]
    for atoms in crystals:
        atoms.info["material_id"] = "same"
    write_report(evaluate(crystals, train=[bulk("Fe"), bulk("Si")], tasks=["validity", "uniqueness", "novelty"]), tmp_path)
    table = list(csv.DictReader((tmp_path / "crystals.csv").open()))
    assert [line["row"] for line in table] == ["0", "1", "2"]
    assert [line["repeats_row"] for line in table] == ["", "", "0"] and [line["in_training_row"] for line in table] == ["", "1", ""]


def test_energies_of_ase_are_taken_per_atom(tmp_path):
    """The same energy per atom in cells of one and of two formula units."""
    for name, repeat in (("one", 1), ("two", 2)):
        atoms = bulk("NaCl", "rocksalt", a=5.6) * (repeat, 1, 1)
        atoms.calc = SinglePointCalculator(atoms, energy=-3.0 * len(atoms))
        ase.io.write(tmp_path / f"{name}.extxyz", [atoms] * 2)
    arguments = (tmp_path / "one.extxyz", "--reference", tmp_path / "two.extxyz", "--tasks", "distributions", "--no-cache", "--json")
    assert json.loads(run(*arguments, "--energy", "energy_per_atom").stdout)["distributions.energy"] == 0.0


def test_what_could_not_be_compared_is_said(monkeypatch, files):
    def failing(item):
        raise RuntimeError("no")

    monkeypatch.setattr("asegen.metrics.pairs._reduce", failing)
    crystals = [bulk("Cu"), bulk("Cu", a=3.7), bulk("Si")]
    found = evaluate(crystals, tasks=["uniqueness"], processes=1)
    assert found.numbers()["uniqueness"] == 1.0 and found.numbers()["uniqueness.share_of_all"] == pytest.approx(1 / 3)
    console = Console(record=True, width=200)
    _print(found, console)
    assert "only 1 of 3 compared" in console.export_text()


def test_numbers_are_printed_before_files_are_written(files, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("asegen.cli.evaluate.write_report", full)
    found = run(files / "generated.extxyz", "--tasks", "space_groups", "--no-cache", "--json", "--out", tmp_path / "out")
    assert found.exit_code == 1 and json.loads(found.stdout)["n"] == 12 and "disk is full" in found.stderr


@pytest.mark.parametrize(("error", "words"), [(KeyboardInterrupt, "what was finished is kept"), (MemoryError, "fewer --processes")])
def test_how_it_ends_too_early(files, monkeypatch, error, words):
    def stop(*arguments, **options):
        raise error

    monkeypatch.setattr("asegen.cli.evaluate.evaluate", stop)
    found = run(files / "generated.extxyz", "--no-cache")
    assert found.exit_code != 0 and words in found.stderr and "--out" not in found.stderr and "batch-size" not in found.stderr
