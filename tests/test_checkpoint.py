import json
import pickle

import pytest
import torch
from conftest import OPTIONS, shaken_network, small_header
from safetensors.torch import save_file

from asegen.checkpoint import load_checkpoint, packaged, read_header, replacing, save_checkpoint
from asegen.errors import CheckpointError
from asegen.systems.diffusion import DiffusionSystem


def test_weights_and_header_survive(tmp_path):
    system = DiffusionSystem(shaken_network(**OPTIONS))
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, system, small_header(options=OPTIONS), dtype=torch.float32)
    loaded = load_checkpoint(path)
    for name, value in system.network.state_dict().items():
        assert torch.equal(loaded.system.network.state_dict()[name], value)
    assert loaded.header["schedule"]["sigma_max"] == system.schedule.sigma_max
    assert loaded.name == "small" and loaded.max_atoms == 20 and len(loaded.hash) == 17
    assert load_checkpoint(path) is loaded  # remembered
    save_checkpoint(path, DiffusionSystem(shaken_network(seed=1, **OPTIONS)), small_header(options=OPTIONS))
    assert load_checkpoint(path) is not loaded  # but a changed file is read again


def test_a_pickle_by_another_name_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    path = tmp_path / "trap.safetensors"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load_checkpoint(path)


def test_foreign_damaged_and_missing_files_say_so(tmp_path, small_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match="no asegen checkpoint"):
        load_checkpoint(foreign)
    broken = tmp_path / "broken.safetensors"
    content = small_path.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError):
        load_checkpoint(broken)
    with pytest.raises(CheckpointError, match="neither a file nor one of the packaged names"):
        load_checkpoint("missing")
    newer = tmp_path / "newer.safetensors"
    save_file({"w": torch.zeros(2)}, newer, metadata={"asegen": json.dumps({"format": 99})})
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(newer)
    header = {**small_header(options=OPTIONS), "format": 2, "system": "diffusion", "schedule": {}}
    save_file({"w": torch.zeros(2)}, newer, metadata={"asegen": json.dumps(header)})
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(newer)


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OSError), replacing(path) as stream:
        stream.write(b"half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_packaged_checkpoints_are_small_and_say_where_they_come_from():
    found = packaged()
    assert {"default", "mp20", "perov-5"} <= set(found)
    assert sum(path.stat().st_size for path in found.values()) < 20e6
    for name, path in found.items():
        header = read_header(path)
        assert header["name"] == name
        assert "/" not in header["training"]["recipe"]["initial"]
        assert header["data"]["licence"] and header["metrics"] and header["training"]["recipe_hash"]


def test_packaged_checkpoints_follow_the_committed_recipes():
    from pathlib import Path

    from asegen.training.recipe import Recipe

    recipes = Path(__file__).parents[1] / "data" / "recipes"
    for name, path in packaged().items():
        assert read_header(path)["training"]["recipe_hash"] == Recipe.read(recipes / f"{name}.toml").hash
