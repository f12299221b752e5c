import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from gallery import same_crystal, small_data

from asegen import generate, load_prototypes
from asegen.datasets import CrystalArrays, Row, write_arrays
from asegen.errors import DataError, RecipeError
from asegen.prototypes.fit import Known, PrototypeRecipe, read_handbook, sort_crystals, train_prototypes
from asegen.prototypes.packing import pack_table
from asegen.prototypes.ranking import Candidate

RECIPE = PrototypeRecipe(
    name="tiny", data_name="made for the test", data_licence="none", kernel_epochs=2, epochs=1, networks=2, processes=1
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prototypes") / "arrays"
    small_data(folder)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    lines = []
    path = train_prototypes(RECIPE, data, tmp_path_factory.mktemp("prototypes") / "out", lines.append)
    return path, lines


def test_training_writes_a_model_that_ranks_and_generates(trained, small):
    path, _ = trained
    assert path.name == "tiny.safetensors"
    model = load_prototypes(path)
    assert Counter(p.number for p in model.table.prototypes) == {225: 1, 221: 2, 216: 1}
    assert sum(len(p.examples) for p in model.table.prototypes) == 60
    for formula, number in (("KBr", 225), ("MgTe", 225), ("TlI", 221), ("CdS", 216), ("BaSnO3", 221)):
        candidates, new = model.rank(formula, new=True)
        assert candidates[0].prototype.number == number, formula
        assert sum(c.probability for c in candidates) + new == pytest.approx(1, abs=1e-6) and new < 0.5
    best = model.rank("BaSnO3")[0][0]
    assert best.volume == pytest.approx(59.5, rel=0.3)
    crystals = generate("RbBr", n=3, prototypes=model, checkpoint=small)
    assert [a.info["start"] for a in crystals] == ["prototype"] * 3 and crystals[0].info["spacegroup"] == 225


def test_the_header_says_what_was_done(trained):
    path, lines = trained
    header = load_prototypes(path).header
    assert header["name"] == "tiny" and header["data"] == {
        "name": "made for the test",
        "licence": "none",
        "count": 60,
        "unused": 0,
        "max_atoms": 20,
        "prototypes": 4,
    }
    losses = header["training"]["losses"]
    assert [len(losses[key]) for key in ("kernel", "network 0", "network 1", "novelty")] == [2, 1, 1, 1]
    assert all(np.isfinite(x) for series in losses.values() for x in series)
    assert losses["kernel"][1] < losses["kernel"][0]
    assert header["training"]["recipe_hash"] == RECIPE.hash and header["training"]["recipe"]["kernel_epochs"] == 2
    assert any("60 of 60 crystals" in line for line in lines) and any("4 prototypes" in line for line in lines)


def test_the_same_recipe_gives_the_same_model(trained, data, tmp_path):
    first, second = load_prototypes(trained[0]), load_prototypes(train_prototypes(RECIPE, data, tmp_path))
    packed = pack_table(first.table)
    assert all((packed[name] == value).all() for name, value in pack_table(second.table).items())
    state = first.ranker.state_dict()
    assert all(torch.equal(state[name], value) for name, value in second.ranker.state_dict().items())


def test_crystals_are_sorted_by_what_they_are(data):
    clusters, unused = sort_crystals(CrystalArrays.open(data), RECIPE, lambda line: None)
    assert unused == 0 and len(clusters) == 4
    kinds = {c.key[0] if len(c.counts) == 2 else "perovskite": {m.source % 4 for m in c.members} for c in clusters}
    assert kinds == {225: {0}, 221: {1}, 216: {2}, "perovskite": {3}}
    assert sorted(m.source for c in clusters for m in c.members) == list(range(60))
    sizes = [len(c.members) for c in clusters]
    assert sizes == sorted(sizes, reverse=True)


def test_large_and_impossible_data_are_refused(data, tmp_path):
    few, _ = sort_crystals(CrystalArrays.open(data), PrototypeRecipe(name="x", max_atoms=2, processes=1), lambda line: None)
    assert sum(len(c.members) for c in few) == 45
    with pytest.raises(DataError, match="at most 1 atoms"):
        train_prototypes(PrototypeRecipe(name="x", max_atoms=1), data, tmp_path)
    with pytest.raises(DataError, match="not a folder of asegen"):
        train_prototypes(RECIPE, tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "unknown entry 'epoch'; known are .*epochs"),
        ("epochs = 3.5", "epochs = 3.5 should be of type int"),
        ("epochs = true", "epochs = True should be of type int"),
        ("rate = 'fast'", "rate = 'fast' should be of type float"),
        ("data_name = 3", "should be of type str"),
        ("epochs =", "not valid TOML"),
    ],
)
def test_bad_recipes_say_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words):
        PrototypeRecipe.read(path)


def test_recipes_are_read_and_hashed(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('system = "prototypes"\nrate = 1\nnetworks = 3\n')
    recipe = PrototypeRecipe.read(path)
    assert recipe == PrototypeRecipe(name="mine", rate=1.0, networks=3) and isinstance(recipe.rate, float)
    assert recipe.hash == PrototypeRecipe.read(path).hash != PrototypeRecipe(name="mine").hash
    with pytest.raises(RecipeError, match="cannot read"):
        PrototypeRecipe.read(tmp_path / "missing.toml")


def test_committed_recipes_are_valid():
    folder = Path(__file__).parents[2] / "data" / "recipes"
    own = [p for p in folder.glob("*.toml") if tomllib.loads(p.read_text()).get("system") == "prototypes"]
    assert own and all(PrototypeRecipe.read(path).data_licence for path in own)


# ------------------------------------------------------------------------------------------------- energies and the handbook


@pytest.fixture(scope="module")
def with_energies(data, tmp_path_factory):
    """The same crystals: of every three one with a published energy, one with a potential's, one with none."""
    folder = tmp_path_factory.mktemp("energies")
    arrays = CrystalArrays.open(data)
    rows = []
    for k in range(len(arrays)):
        atoms = slice(arrays.offsets[k], arrays.offsets[k + 1])
        nan = float("nan")
        published, computed = (0.001 * k, nan) if k % 3 == 0 else (nan, 0.5 + 0.001 * k) if k % 3 == 1 else (nan, nan)
        properties = {"e_above_hull": published, "e_above_hull_calc": computed, "e_above_hull_published": float(k % 3 == 0)}
        properties["material"] = float(1000 + k if k % 2 else -k)
        rows.append(Row(str(k), arrays.cell[k], arrays.frac[atoms], arrays.numbers[atoms], properties))
    write_arrays(rows, folder / "arrays", source="made for the test")
    (folder / "book.csv").write_text("groups,formulas\n225 221,RbBr Li2F2\n216,RbBr ZnTe\n")
    recipe = replace(RECIPE, name="energies", handbook=str(folder / "book.csv"))
    return folder / "arrays", train_prototypes(recipe, folder / "arrays", folder / "out")


def test_what_is_known_of_each_crystal_is_kept(with_energies):
    folder, path = with_energies
    arrays = CrystalArrays.open(folder)
    known = Known.of(arrays)
    assert known.published.tolist() == [k % 3 == 0 for k in range(60)]
    assert np.isnan(known.hull).tolist() == [k % 3 == 2 for k in range(60)]
    model = load_prototypes(path)
    assert model.table.has_energies and model.table.prototypes.keeps_crystals
    rows = [
        (p.number, len(p.counts), hull, bool(published), int(material))
        for p in model.table.prototypes
        for hull, published, material in zip(p.hull, p.published, p.material, strict=True)
    ]
    by_material = {row[4]: row for row in rows}
    assert len(rows) == len(by_material) == 60
    for k in range(60):
        number, elements, hull, published, _ = by_material[1000 + k if k % 2 else -k]
        assert (number, elements) == ((225, 2), (221, 2), (216, 2), (221, 3))[k % 4] and published == (k % 3 == 0)
        assert (np.isnan(hull) and k % 3 == 2) or hull == pytest.approx(0.001 * k + 0.5 * (k % 3 == 1), abs=5.1e-4)


def test_data_without_properties_have_no_energies(data, trained):
    known = Known.of(CrystalArrays.open(data))
    assert np.isnan(known.hull).all() and not known.published.any() and not known.material.any()
    assert not load_prototypes(trained[0]).table.has_energies and load_prototypes(trained[0]).header["handbook"] == {}


def test_energies_without_a_word_on_their_source_are_published(tmp_path):
    rows = [Row(str(k), 4 * np.eye(3), np.zeros((1, 3)), np.array([29]), {"e_above_hull": h}) for k, h in enumerate((0.1, float("nan")))]
    write_arrays(rows, tmp_path / "arrays", source="made for the test")
    known = Known.of(CrystalArrays.open(tmp_path / "arrays"))
    assert known.published.tolist() == [True, False] and known.hull[0] == pytest.approx(0.1)


def test_a_model_with_energies_and_a_handbook_answers_both_questions(with_energies):
    _, path = with_energies
    model = load_prototypes(path)
    assert model.header["handbook"] == {"BrRb": [225, 221, 216], "FLi": [225, 221], "TeZn": [216]}
    for formula in ("KI", "CdS", "BaSnO3"):
        for order in ("stable", "likely"):
            candidates, new = model.rank(formula, order=order)
            assert candidates and sum(c.probability for c in candidates) + new == pytest.approx(1, abs=1e-6)
    assert model.rank("RbBr")[0][0].handbook and model.rank("RbBr")[0][0].prototype.number == 225
    zinc = model.rank("Zn2Te2")[0][0]
    assert zinc.handbook and zinc.prototype.number == 216
    assert not any(c.handbook for c in model.rank("RbBr", order="likely")[0] + model.rank("KBr")[0])
    losses = model.header["training"]["losses"]
    assert all(np.isfinite(x) for series in losses.values() for x in series)


def test_known_crystals_come_back_as_they_were(with_energies):
    """Cells and coordinates survive the file."""
    folder, path = with_energies
    arrays, model = CrystalArrays.open(folder), load_prototypes(path)
    seen = set()
    for prototype in model.table.prototypes:
        for row, material in enumerate(prototype.material.tolist()):
            k = material - 1000 if material > 0 else -material
            atoms = slice(arrays.offsets[k], arrays.offsets[k + 1])
            true = Atoms(numbers=arrays.numbers[atoms], scaled_positions=arrays.frac[atoms], cell=arrays.cell[k], pbc=True)
            elements = tuple(prototype.examples[row].tolist())
            kept = Candidate(prototype, elements, 1.0, True, prototype.own[row], material=material)
            assert same_crystal(kept.crystal()[0], true, 1e-3), k
            assert kept.material_id == (f"mp-{material}" if material > 0 else f"mvc-{-material}" if material else "")
            seen.add(k)
    assert seen == set(range(60))


def test_a_handbook_is_read_by_reduced_formula(tmp_path):
    path = tmp_path / "book.csv"
    path.write_text("groups,formulas\n136 141,Ti2O4 SnO2\n141,TiO2\n227,C8\n")
    assert read_handbook(path) == {"O2Ti": [136, 141, 141], "O2Sn": [136, 141], "C": [227]}
    path.write_text("formulas,groups,source\nNaCl,225,\n")
    assert read_handbook(path) == {"ClNa": [225]}
    path.write_text("groups,formulas\n")
    assert read_handbook(path) == {}


@pytest.mark.parametrize(
    "text",
    [
        "group,formula\n225,NaCl\n",
        "groups,formulas\n225\n",
        "groups,formulas\n231,NaCl\n",
        "groups,formulas\nFm-3m,NaCl\n",
        "groups,formulas\n225,NaCl Xx2\n",
        "groups,formulas\n225,salt\n",
        None,
    ],
)
def test_handbooks_that_cannot_be_read_say_so(tmp_path, text):
    path = tmp_path / "book.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=r"book\.csv is no table of formulas and space groups: "):
        read_handbook(path)


def test_a_handbook_that_cannot_be_read_leaves_no_model(data, tmp_path):
    with pytest.raises(DataError, match=r"missing\.csv is no table"):
        train_prototypes(replace(RECIPE, handbook=str(tmp_path / "missing.csv")), data, tmp_path / "out")
    assert not (tmp_path / "out" / "tiny.safetensors").exists()


def test_the_handbook_of_the_package_is_readable():
    found = read_handbook(Path(__file__).parents[2] / "data" / "handbook.csv")
    assert len(found) > 100 and found["ClNa"] == [225] and found["O2Ti"][0] == 136
    assert all(1 <= number <= 230 for groups in found.values() for number in groups) and all(found.values())


@pytest.mark.parametrize("line", ["225,NaCl,KCl", ",NaCl"])
def test_a_handbook_line_that_would_lose_something_is_refused(tmp_path, line):
    path = tmp_path / "handbook.csv"
    path.write_text(f"groups,formulas\n{line}\n")
    with pytest.raises(DataError, match="should be groups, a comma, and formulas"):
        read_handbook(path)


def test_a_bad_handbook_is_noticed_before_training(data, tmp_path):
    told = []
    with pytest.raises(DataError, match="missing"):
        train_prototypes(replace(RECIPE, handbook=str(tmp_path / "missing.csv")), data, tmp_path / "out", told.append)
    assert told == []
