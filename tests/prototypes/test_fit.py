import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from gallery import small_data

from asegen import generate, load_prototypes
from asegen.datasets import CrystalArrays
from asegen.errors import DataError, RecipeError
from asegen.prototypes.fit import PrototypeRecipe, sort_crystals, train_prototypes
from asegen.prototypes.packing import pack_table

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
