"""The diffusion of vectors: schedule, samplers, seeds, files, training, and crystals that come out."""

from __future__ import annotations

import json
import math

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from typer.testing import CliRunner

import asegen
from asegen.cli.main import app
from asegen.crystals import CrystalBatch
from asegen.datasets import CrystalArrays, Row, write_arrays
from asegen.descriptors.ead import EAD
from asegen.descriptors.structure_vector import Decoded, StructureVector
from asegen.errors import AsegenError, CheckpointError, FormulaError, RecipeError
from asegen.networks.unet1d import UNet1D
from asegen.structrep.generation import Draws, draw_seed, generate_structrep
from asegen.structrep.model import load_structrep, read_structrep_header, save_structrep
from asegen.structrep.search import Found, Metric, Search, random_start, reconstruct
from asegen.systems.structrepdiff import FIRST, CosineSchedule, Sampler, Scaling, VectorDiffusion

SMALL = EAD(orders=(0, 1, 2), radial=((3.0, 2.0), (3.0, 3.0), (3.0, 4.0)), cutoff=5.5, directions=True)
OPTIONS = {"width": 16, "stages": [1], "patch": 8, "groups": 4}
QUICK = Search(rounds=2, starts=4, trials=2, hops=1, steps=6, refining=4, exchanges=1)


class Gaussian(torch.nn.Module):
    """The exact prediction for data that are independent Gaussians of mean m and deviation s in scaled units."""

    def __init__(self, mean: torch.Tensor, deviation: torch.Tensor, schedule: CosineSchedule, prediction: str) -> None:
        super().__init__()
        self.m, self.s, self.bar, self.steps, self.prediction = mean, deviation, schedule.alpha_bar().float(), schedule.steps, prediction

    def forward(self, x, time):
        bar = self.bar[(time * self.steps).round().long()][:, None]
        noise = (1 - bar).sqrt() * (x - bar.sqrt() * self.m) / (bar * self.s**2 + 1 - bar)  # −√(1−ᾱ) × score
        clean = self.m + bar.sqrt() * self.s**2 * (x - bar.sqrt() * self.m) / (bar * self.s**2 + 1 - bar)
        return noise if self.prediction == "noise" else bar.sqrt() * noise - (1 - bar).sqrt() * clean


def gaussian(prediction: str = "v", steps: int = 2000) -> VectorDiffusion:
    mean, deviation = torch.tensor([0.5, -1.0, 0.0]), torch.tensor([0.3, 1.0, 2.0])
    wide = torch.full((3,), 50.0)
    scaling = Scaling(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 1.0]), -wide, wide)
    schedule = CosineSchedule(steps)
    return VectorDiffusion(Gaussian(mean, deviation, schedule, prediction), scaling, schedule, prediction)


def test_the_schedule_is_its_closed_form():
    bar = CosineSchedule(2000).alpha_bar()
    assert len(bar) == 2001 and float(bar[0]) == 1.0 and (bar[1:] < bar[:-1]).all()
    for t in (1, 500, 1000, 1900):
        f = [math.cos((x + 0.008) / 1.008 * math.pi / 2) ** 2 for x in (t / 2000, 0.0)]
        assert float(bar[t]) == pytest.approx(f[0] / f[1], rel=1e-9)
    assert float(1 - bar[-1] / bar[-2]) == pytest.approx(0.999)  # the last β is clipped
    assert float(bar[round(FIRST * 2000)]) > 1e-4


def test_samplers_ask_at_the_steps_they_should():
    assert Sampler(2000).times(2000) == list(range(2000, -1, -1))
    fast = Sampler(100).times(2000)
    assert len(fast) == 101 and fast[0] == 1960 and fast[-1] == 0 and fast == sorted(set(fast), reverse=True)
    for bad in ({"evaluations": 0}, {"churn": 1.5}, {"order": 3}):
        with pytest.raises(RecipeError):
            Sampler(**bad)


@pytest.mark.parametrize("prediction", ["v", "noise"])
@pytest.mark.parametrize("sampler", [Sampler(100, 1.0), Sampler(50, 0.0), Sampler(200, 1.0, 1)])
def test_samplers_reproduce_a_gaussian(prediction, sampler):
    steps = 200 if sampler.evaluations == 200 else 2000  # the ancestral sampler, of a shorter schedule
    found = gaussian(prediction, steps).sample(range(2000), sampler)
    wanted_mean, wanted = torch.tensor([2.0, 1.0, 3.0]), torch.tensor([0.6, 1.0, 2.0])
    assert ((found.mean(0) - wanted_mean).abs() < 4 * wanted / 2000**0.5 + 0.02).all()
    assert ((found.std(0) / wanted - 1).abs() < 0.06).all()


def test_ancestral_steps_are_the_posterior_of_ddpm():
    system = gaussian(steps=50)
    bar = system.schedule.alpha_bar()
    x, clean = torch.randn(2, 3), torch.randn(2, 3)
    t = 30
    beta = 1 - bar[t] / bar[t - 1]
    mean = bar[t - 1].sqrt() * beta / (1 - bar[t]) * clean + (1 - beta).sqrt() * (1 - bar[t - 1]) / (1 - bar[t]) * x
    deviation = ((1 - bar[t - 1]) / (1 - bar[t]) * beta).sqrt()
    ones = torch.ones(2, 3)
    torch.testing.assert_close(system._step(x, clean, t, t - 1, 1.0, lambda: 0 * ones), mean.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(system._step(x, clean, t, t - 1, 1.0, lambda: ones), (mean + deviation).float(), rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_a_perfect_network_and_of_a_silent_one():
    system = gaussian(steps=200)
    data = system.network.m + system.network.s * torch.randn(4000, 3, generator=torch.Generator().manual_seed(1))
    perfect = float(system.loss(data, torch.Generator().manual_seed(0)))
    with pytest.raises(RecipeError, match="v or noise"):
        VectorDiffusion(system.network, system.scaling, prediction="x")
    unit = torch.randn(4000, 3, generator=torch.Generator().manual_seed(2))
    system.network.forward = lambda x, time: 0 * x  # type: ignore[method-assign]
    assert float(system.loss(unit, torch.Generator().manual_seed(0))) == pytest.approx(1.0, abs=0.03)
    assert perfect < float(system.loss(data, torch.Generator().manual_seed(0)))


def test_scaling_goes_there_and_back_and_keeps_constants():
    random = torch.Generator().manual_seed(0)
    data = torch.randn(500, 6, generator=random) * torch.tensor([1.0, 10.0, 0.01, 2.0, 4.0, 0.0]) + 5
    scaling = Scaling.of(data, [slice(3, 5)])
    scaled = scaling.forward(data)
    torch.testing.assert_close(scaling.inverse(scaled), data)
    torch.testing.assert_close(scaled.std(0)[:3], torch.ones(3), rtol=1e-2, atol=0)
    assert float(scaling.scale[3]) == float(scaling.scale[4]) == pytest.approx(10**0.5, rel=0.1)
    assert float(scaling.low[5]) == float(scaling.high[5]) == 0  # clipping makes it exact
    system = VectorDiffusion(UNet1D(6, **{**OPTIONS, "patch": 2}), scaling)
    drawn = system.sample([1, 2, 3], Sampler(5))
    assert (drawn[:, 5] == 5).all() and (drawn <= data.amax(0) + 1e-4).all() and (drawn >= data.amin(0) - 1e-4).all()


# ------------------------------------------------------------------------------------------------------- models and crystals


def rocksalts(count: int = 40) -> list[Atoms]:
    random = np.random.default_rng(0)
    pairs = [("Na", "Cl"), ("K", "Cl"), ("Na", "Br"), ("K", "Br")]
    return [bulk("".join(pairs[k % 4]), "rocksalt", a=5.6 + 0.4 * random.random()) for k in range(count)]


def model_file(path, network: torch.nn.Module | None = None):
    crystals = CrystalBatch.from_atoms(rocksalts())
    layout = StructureVector(SMALL, (11, 17, 19, 35), 2)
    vectors = layout.encode(crystals)
    torch.manual_seed(0)
    network = network or UNet1D(layout.size, **OPTIONS)
    system = VectorDiffusion(network, Scaling.of(vectors, [layout.composition]))
    header = {
        "name": "salts",
        "network": {"name": "unet1d", "options": OPTIONS},
        "sampler": {"evaluations": 20, "churn": 1.0},
        "data": {"name": "salts", "licence": "none", "count": 40, "elements": list(layout.elements), "max_atoms": 2},
        "training": {"steps": 0, "recipe": {}, "recipe_hash": "0", "device": "cpu"},
        "metrics": {"validity": {"valid": 1.0}},
    }
    save_structrep(path, system, layout, header)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a model that was trained for a few seconds on salts, and its data."""
    pytest.importorskip("lightning")
    from asegen.training.vectors import VectorRecipe, train_vectors

    folder = tmp_path_factory.mktemp("salts")
    rows = [Row(str(k), a.cell.array, a.get_scaled_positions(), a.numbers) for k, a in enumerate(rocksalts(64))]
    write_arrays(rows, folder / "arrays")
    ead = {"orders": [0, 1, 2], "radial": [list(pair) for pair in SMALL.radial], "cutoff": SMALL.cutoff, "directions": True}
    options = {"steps": 80, "batch_size": 16, "learning_rate": 5e-3, "ema": 0.95, "precision": "32-true"}
    recipe = VectorRecipe("salts", max_atoms=2, ead=ead, network_options=OPTIONS, sampler={"evaluations": 10}, **options)
    path = train_vectors(recipe, folder / "arrays", folder / "run", device="cpu", progress=False, save_every=50)
    return folder, recipe, path


def test_a_trained_model_gives_salts(trained):
    _, _, path = trained
    header = read_structrep_header(path)
    assert header["metrics"]["val_total"] < 0.5 and header["training"]["steps"] == 80
    draws = Draws()
    crystals = generate_structrep(6, 1, checkpoint=path, search=QUICK, draws=draws)
    assert len(crystals) == 6 == draws.crystals and "6 crystals" in draws.sentence()
    for atoms in crystals:
        assert len(atoms) == 2 and set(atoms.numbers) <= {11, 17, 19, 35} and 30 < atoms.cell.volume < 70
        assert {"seed", "loss", "hops", "failed_hops", "rejected", "steps", "checkpoint", "checkpoint_hash"} <= set(atoms.info)
        assert atoms.info["hops"] == 8 and np.isfinite(atoms.info["loss"])


def test_a_killed_run_resumes_to_the_same_model(trained):
    from asegen.training.vectors import train_vectors

    folder, recipe, path = trained
    again = folder / "again"
    weights = {}
    for minutes in (0.0, None):  # stopped after its first step, then on to the end
        target = train_vectors(recipe, folder / "arrays", again, device="cpu", progress=False, max_minutes=minutes)
        weights[minutes] = load_structrep(target).diffusion.network.state_dict()
    whole = load_structrep(path).diffusion.network.state_dict()
    assert any((weights[0.0][k] != whole[k]).any() for k in whole)
    for key, value in whole.items():
        torch.testing.assert_close(weights[None][key], value, rtol=0, atol=0)
    other = type(recipe)(**{**recipe.__dict__, "learning_rate": 1e-3})
    with pytest.raises(RecipeError, match="another recipe"):
        train_vectors(other, folder / "arrays", again, device="cpu", progress=False)


def test_vectors_are_computed_once_and_left_out_crystals_counted(trained):
    from asegen.training.vectors import encoded, layout_of

    folder, recipe, _ = trained
    arrays = CrystalArrays.open(folder / "arrays")
    layout, lines = layout_of(arrays, recipe), []
    first = encoded(arrays, layout, folder, lines.append)
    assert len(first) == 64 and lines
    lines.clear()
    torch.testing.assert_close(encoded(arrays, layout, folder, lines.append), first)
    assert not lines
    narrow = StructureVector(SMALL, (11, 17), 2)
    assert len(encoded(arrays, narrow, folder, lines.append)) == 16 and "48 left out" in lines[-1]


def test_the_same_seed_gives_the_same_vector_in_every_batch(tmp_path):
    model = load_structrep(model_file(tmp_path / "m.safetensors"))
    together = model.diffusion.sample([5, 6, 7, 8], Sampler(10))
    torch.testing.assert_close(model.diffusion.sample([7], Sampler(10)), together[2:3], rtol=1e-4, atol=1e-4)
    assert draw_seed(0, 1, 0) != draw_seed(0, 1, 1) != draw_seed(0, 2, 1)
    assert model.diffusion.sample([], Sampler(3)).shape == (0, model.layout.size)


def fixed(decoded: list[Decoded], seeds: list[int]) -> list[Found | None]:
    """A search that fails for every third seed."""
    return [
        None if s % 3 == 0 else Found(np.array([[0.0] * 3, [0.5] * 3])[: len(d.numbers)], 0.1, 1, 0)
        for d, s in zip(decoded, seeds, strict=True)
    ]


def test_batches_do_not_change_crystals_and_what_fails_is_counted_and_drawn_again(trained):
    _, _, path = trained
    runs = []
    for size in (2, 7):
        draws, batches = Draws(), []
        runs.append(generate_structrep(7, 3, checkpoint=path, positions=fixed, batch_size=size, draws=draws, on_batch=batches.append))
        assert draws.rejected["positions"] > 0 and sum(len(batch) for batch in batches) == 7
        assert sum(atoms.info["rejected"] for atoms in runs[-1]) == sum(draws.rejected.values())
    for a, b in zip(*runs, strict=True):
        assert a.info["seed"] == b.info["seed"] and a.info["rejected"] == b.info["rejected"]
        np.testing.assert_allclose(a.cell.array, b.cell.array, atol=1e-3)
    rest = generate_structrep(7, 3, checkpoint=path, positions=fixed, done=dict(enumerate(runs[0][:5])))
    assert [atoms.info["seed"] for atoms in rest] == [atoms.info["seed"] for atoms in runs[0]]


def test_a_model_that_draws_no_crystals_says_so(trained, monkeypatch):
    _, _, path = trained
    monkeypatch.setattr("asegen.structrep.generation.MOST_DRAWS", 2)
    with pytest.raises(AsegenError, match="none of them is a crystal"):
        generate_structrep(1, checkpoint=path, positions=lambda decoded, seeds: [None] * len(decoded))
    for bad in ({"n": 0}, {"batch_size": 0}):
        with pytest.raises(AsegenError, match=r"at least (1|one)"):
            generate_structrep(**{"checkpoint": path, **bad})


def test_the_search_finds_rocksalt_and_survives_what_is_hopeless():
    atoms = rocksalts(1)[0]
    layout = StructureVector(SMALL, (11, 17, 19, 35), 2)
    vectors = layout.encode(CrystalBatch.from_atoms(rocksalts()))
    good = layout.decode(vectors[0])
    hopeless = Decoded(good.numbers, good.cell, torch.full_like(good.target, torch.nan))
    metric = Metric(SMALL, Scaling.of(vectors).scale[layout.descriptor])
    found, lost = reconstruct([good, hopeless], [0, 1], metric, Search(rounds=2, starts=4, trials=2, hops=1, steps=30, refining=30))
    assert lost is None and found is not None and found.loss < 0.05 and found.failed == 0
    delta = found.frac[1] - found.frac[0]
    np.testing.assert_allclose(delta - delta.round(), np.sign(delta - delta.round()) * 0.5, atol=0.03)
    again, _ = reconstruct([good, hopeless], [0, 1], metric, Search(rounds=2, starts=4, trials=2, hops=1, steps=30, refining=30))
    np.testing.assert_array_equal(again.frac, found.frac)
    assert random_start(np.random.default_rng(0), atoms.cell.array, 3, 1).shape == (3, 1, 3)
    assert reconstruct([], [], metric) == []
    with pytest.raises(AsegenError, match="at least one round"):
        Search(starts=1, trials=2)


def test_damaged_files_are_named(tmp_path):
    path = model_file(tmp_path / "m.safetensors")
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])

    def written(name: str, change) -> str:
        inner = json.loads(header["__metadata__"]["asegen"])
        change(inner)
        text = json.dumps({**header, "__metadata__": {"asegen": json.dumps(inner)}}).encode()
        (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
        return str(tmp_path / name)

    (tmp_path / "torn.safetensors").write_bytes(content[:-100])
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K\x01.")
    cases = {
        str(tmp_path / "torn.safetensors"): "not a safetensors file|damaged",
        str(tmp_path / "pickle.safetensors"): "pickled checkpoints are never opened",
        written(
            "elements.safetensors", lambda h: h["vector"]["elements"].append(99)
        ): "damaged: the scaling has 30 entries, the vectors 31",
        written("width.safetensors", lambda h: h["network"]["options"].update(width=32)): "damaged",
        written("ead.safetensors", lambda h: h["vector"].pop("ead")): "damaged",
        written("prediction.safetensors", lambda h: h["diffusion"].update(prediction="x")): "damaged: prediction = 'x'",
        written("new.safetensors", lambda h: h.update(format=9)): "format 9",
        written("other.safetensors", lambda h: h.update(system="prototypes")): "'prototypes', not 'structrepdiff'",
        "no-such": "no structrepdiff checkpoint 'no-such'",
    }
    for source, words in cases.items():
        with pytest.raises(CheckpointError, match=words):
            load_structrep(source)
    with pytest.raises(CheckpointError, match="--system structrepdiff"):
        asegen.generate("NaCl", checkpoint=path)


def run_here(*arguments, code: int = 0):
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == code, done.output + str(done.exception)
    return done


def test_the_command_line_goes_all_the_way(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asegen.structrep.generation.reconstruct", lambda d, seeds, metric, search, device: fixed(d, seeds))
    _, _, path = trained
    folder = tmp_path / "out"
    request = ["generate", "--system", "structrepdiff", "--checkpoint", path, "-n", 3, "--out", folder]
    assert "3 crystals from structrepdiff checkpoint 'salts'" in run_here(*request).stdout
    crystals = ase.io.read(folder / "structures.extxyz", index=":")
    assert len(crystals) == 3 == len(list((folder / "cif").glob("*.cif"))) and crystals[0].info["loss"] == 0.1
    assert run_here(*request).exit_code == 0  # finished: nothing is drawn again
    assert "--overwrite" in run_here(*request, "--seed", 1, code=1).stderr
    entries = json.loads(run_here(*request[:-2], "--json").stdout)
    assert [entry["seed"] for entry in entries["crystals"]] == [atoms.info["seed"] for atoms in crystals] and "rejected" in entries
    told = run_here("info", path).stdout
    assert "structrepdiff, unet1d network" in told and "EAD of orders [0, 1, 2]" in told
    assert json.loads(run_here("info", path, "--json").stdout)["system"] == "structrepdiff"
    python = asegen.generate(n=3, system="structrepdiff", checkpoint=path)
    assert [atoms.info["seed"] for atoms in python] == [atoms.info["seed"] for atoms in crystals]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["NaCl"], "takes no formula"),
        (["--spacegroup", "225"], "takes no formula"),
        (["--units", "2"], "takes no formula"),
        (["--checkpoint", "no-such"], "no structrepdiff checkpoint"),
        (["--steps", "0"], "at least one evaluation"),
        (["-n", "0"], "at least one crystal"),
        (["--system", "gan"], "no system 'gan'"),
    ],
)
def test_what_cannot_be_asked(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = model_file(tmp_path / "m.safetensors")
    done = run_here("generate", "--system", "structrepdiff", "--checkpoint", path, *arguments, code=1)
    assert done.stderr.startswith("asegen: ") and words in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_generate_says_what_the_system_cannot_do(tmp_path):
    with pytest.raises(FormulaError, match="takes no formula"):
        asegen.generate("NaCl", system="structrepdiff", checkpoint="x")
    with pytest.raises(AsegenError, match="no system 'gan'"):
        asegen.generate(system="gan")


def test_recipes_are_checked(tmp_path):
    from asegen.training.vectors import VectorRecipe

    good = 'system = "structrepdiff"\n'
    for text, words in (
        ("stepz = 3", "unknown entry 'stepz'"),
        ("steps = 0", "steps = 0"),
        ("decay = 2.0", "decay"),
        ("ead = { orders = [9], radial = [[1.0, 1.0]], cutoff = 5.0 }", "orders"),
        ("sampler = { eta = 1.0 }", "sampler"),
    ):
        (tmp_path / "r.toml").write_text(good + text)
        with pytest.raises((RecipeError, AsegenError), match=words):
            VectorRecipe.read(tmp_path / "r.toml")
