import copy
import csv
import tomllib

import numpy as np
import pytest
import torch
from ase.build import bulk

from asegen import generate
from asegen.checkpoint import load_checkpoint, read_header
from asegen.datasets import CrystalArrays, Row, write_arrays
from asegen.errors import DataError, RecipeError
from asegen.training.optimizer import MuonAdamW
from asegen.training.recipe import Recipe
from asegen.training.sampler import SizeGroupedBatches

SMALL = {"network_options": {"width": 32, "layers": 2, "heads": 4}, "batch_size": 32, "warmup": 5, "precision": "32-true"}


@pytest.fixture(scope="module")
def salts(tmp_path_factory):
    """Rocksalt crystals of random composition: something a small network learns in seconds."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(256):
        metal, anion = random.choice(["Li", "Na", "K", "Rb", "Cs"]), random.choice(["F", "Cl", "Br", "I"])
        atoms = bulk(metal + anion, "rocksalt", a=5.5 + 0.3 * random.random())
        rows.append(Row(str(number), atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers))
    folder = tmp_path_factory.mktemp("salts") / "arrays"
    write_arrays(rows, folder, source="rocksalts made for the test")
    return folder


def losses(folder) -> dict[int, float]:
    with open(folder / "metrics.csv", newline="") as stream:
        return {int(r["step"]): float(r["train_total"]) for r in csv.DictReader(stream) if r["train_total"]}


def test_a_small_network_learns_rocksalt(salts, tmp_path):
    from asegen.training.train import train

    recipe = Recipe(name="salt", steps=250, ema=0.98, data_licence="none", walk={"steps": 30}, **SMALL)
    path = train(recipe, salts, tmp_path, device="cpu", progress=False)
    header = read_header(path)
    assert header["metrics"]["val_position"] < 0.6 and header["metrics"]["val_lattice"] < 0.6
    assert header["data"]["max_atoms"] == 2 and header["training"]["steps"] == 250
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    off = []
    for atoms in generate("NaCl", n=8, checkpoint=path):
        delta = np.diff(atoms.get_scaled_positions(wrap=False), axis=0)[0]
        off.append(np.abs(np.abs(delta - np.round(delta)) - 0.5))
    assert np.mean(off) < 0.05  # random places give 0.25


def test_a_killed_run_resumes_with_the_same_losses(salts, tmp_path, monkeypatch):
    from asegen.training import module
    from asegen.training.train import train

    recipe = Recipe(name="x", steps=20, **SMALL)
    seen: dict[str, dict[int, float]] = {"whole": {}, "part": {}}
    original = module.TrainingModule.training_step

    def run(name: str, out: str, stop: int | None = None) -> None:
        def step(self, batch, number):
            if stop is not None and self.global_step == stop:
                raise KeyboardInterrupt
            loss = original(self, batch, number)
            seen[name][self.global_step] = loss.item()
            return loss

        monkeypatch.setattr(module.TrainingModule, "training_step", step)
        try:
            train(recipe, salts, tmp_path / out, device="cpu", progress=False, save_every=3)
        except (KeyboardInterrupt, SystemExit):
            assert stop is not None

    run("whole", "whole")
    run("part", "part", stop=11)  # in the middle of the second epoch
    assert max(seen["part"]) == 10 and not (tmp_path / "part" / "x.safetensors").exists()
    run("part", "part")
    assert sorted(seen["whole"]) == sorted(seen["part"]) == list(range(20))
    assert seen["part"] == pytest.approx(seen["whole"], rel=1e-5)
    first, second = (load_checkpoint(tmp_path / out / "x.safetensors").system.network for out in ("whole", "part"))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-3)


def test_training_can_start_from_a_checkpoint(salts, tmp_path, small_path):
    from asegen.training.train import train

    recipe = Recipe(name="next", steps=1, initial=str(small_path), learning_rate=0.0, matrix_rate=0.0, weight_decay=0.0, **SMALL)
    path = train(recipe, salts, tmp_path, device="cpu", progress=False)
    before, after = (load_checkpoint(p).system.network.state_dict() for p in (small_path, path))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_data_without_small_enough_crystals_is_refused(salts, tmp_path):
    from asegen.training.train import train

    with pytest.raises(DataError, match="at most 1 atoms"):
        train(Recipe(name="x", max_atoms=1, **SMALL), salts, tmp_path, device="cpu", progress=False)


def test_every_epoch_visits_every_crystal_once_and_resumes_anywhere():
    sizes = np.random.default_rng(0).integers(1, 20, 1000)
    done = [0]
    sampler = SizeGroupedBatches(sizes, 64, done=lambda: done[0])
    first = list(sampler)
    assert sorted(i for batch in first for i in batch) == list(range(1000))
    assert len(first) == len(sampler)
    done[0] = 5
    assert list(sampler) == first[5:]
    done[0] = len(sampler)
    second = list(sampler)
    assert second != first and sorted(i for batch in second for i in batch) == list(range(1000))
    # few different sizes in a batch, else there is no gain in grouping
    assert np.mean([len(set(sizes[batch])) for batch in first]) < 8


def test_processes_share_an_epoch_without_overlap():
    sizes = np.random.default_rng(0).integers(1, 20, 1000)
    shares = [list(SizeGroupedBatches(sizes, 64, rank=rank, world=3)) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    seen = [i for share in shares for batch in share for i in batch]
    assert len(seen) == len(set(seen)) > 900


def test_recipes_are_read_and_checked(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("steps = 7\nlearning_rate = 1\nnetwork_options = { width = 64 }\n")
    recipe = Recipe.read(path)
    assert (recipe.name, recipe.steps, recipe.learning_rate) == ("mine", 7, 1.0)
    assert recipe.hash != Recipe(name="mine").hash
    for text, words in [
        ("stepz = 3", "unknown entry 'stepz'"),
        ("steps = 'many'", "should be of type int"),
        ("steps = 0", "at least 1"),
        ("network = 'magic'", "unknown network"),
        ("free_share = 2.0", r"in \[0, 1\]"),
        ("steps =", "not valid TOML"),
    ]:
        path.write_text(text)
        with pytest.raises(RecipeError, match=words):
            Recipe.read(path)
    with pytest.raises(RecipeError, match="cannot read"):
        Recipe.read(tmp_path / "missing.toml")


def test_committed_recipes_are_valid():
    from pathlib import Path

    folder = Path(__file__).parents[2] / "data" / "recipes"
    score = [path for path in folder.glob("*.toml") if tomllib.loads(path.read_text()).get("system", "diffusion") == "diffusion"]
    assert {Recipe.read(path).name for path in score} >= {"mp20", "perov-5", "default"}


def test_the_optimizer_keeps_its_state():
    def fresh():
        torch.manual_seed(0)
        network = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(4, 4)]), "head": torch.nn.Linear(4, 1)})
        return network, MuonAdamW(network, 1e-2, 1e-2, 0.0)

    def step(network, optimizer):
        optimizer.zero_grad()
        network["head"](network["layers"][0](torch.ones(2, 4))).square().sum().backward()
        optimizer.step()

    network, optimizer = fresh()
    for _ in range(3):
        step(network, optimizer)
    weights, state = {k: v.clone() for k, v in network.state_dict().items()}, copy.deepcopy(optimizer.state_dict())
    step(network, optimizer)
    again, other = fresh()
    again.load_state_dict(weights)
    other.load_state_dict(state)
    step(again, other)
    assert all(torch.allclose(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_arrays_open_without_reading_them(salts):
    assert isinstance(CrystalArrays.open(salts).numbers, np.memmap)
