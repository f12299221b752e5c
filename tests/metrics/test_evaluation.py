"""Everything in one go, from Python and from the command line."""

import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from gallery_of_crystals import odd, rattled, sane
from typer.testing import CliRunner

from asegen.cli.main import app
from asegen.datasets.writers import write_crystals
from asegen.metrics import Cache, crystal_set, evaluate
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
    assert len(lines) == 13 and lines[0].startswith("name,formula,error,valid_structure")
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
    assert "space_groups.distance" in found.missing
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
        (["generated.extxyz", "--train", "train.extxyz", "--tasks", "sun", "--e-above-hull", "nothing"], "nothing"),
    ],
)
def test_errors_are_one_sentence(files, arguments, sentence):
    found = run(*(files / a if a.endswith((".extxyz", ".cif")) else a for a in arguments), "--no-cache")
    assert found.exit_code == 1
    assert sentence in found.output.replace("\n", " ") and "Traceback" not in found.output


def test_a_file_without_a_crystal_is_an_error(tmp_path):
    (tmp_path / "bad.cif").write_text("data_x\n_cell_length_a nonsense\n")
    found = run(tmp_path / "bad.cif", "--no-cache")
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
