"""Tensor files of CDVAE and DiffCSP: evaluations, true structures, and nothing of the file is run."""

import argparse
import os
import pathlib
import sys
import types
from collections import defaultdict

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from test_formats import assert_same_crystal, some_crystals, tensors

from asegen.datasets.readers import read_rows, read_truth
from asegen.errors import DataError


def test_tensors_with_and_without_evaluations_and_types_of_all_kinds(tmp_path):
    crystals = [bulk("NaCl", "rocksalt", a=5.6), bulk("Cu"), bulk("GaAs", "zincblende", a=5.65)]
    plain = tensors(crystals)
    hot = torch.nn.functional.one_hot(plain["atom_types"] - 1, 100)
    leading = {key: value[None] for key, value in plain.items()}
    variants = {
        "plain": plain,
        "leading": leading,
        "one-hot": {**plain, "atom_types": hot},
        "logits": {**leading, "atom_types": hot[None].float() * 3 - 1},
        "column": {**plain, "atom_types": plain["atom_types"][:, None].float()},
        "lists": {key: value.tolist() for key, value in plain.items()},
        "numpy": {key: value.numpy() for key, value in plain.items()},
        "half": {**plain, "angles": plain["angles"].bfloat16()},
        "shared counts": {**plain, "frac_coords": plain["frac_coords"].expand(3, -1, -1)},
    }
    for name, content in variants.items():
        torch.save(content, tmp_path / "x.pt")
        rows = list(read_rows(tmp_path / "x.pt"))
        assert len(rows) == (9 if name == "shared counts" else 3), name
        for row, atoms in zip(rows, crystals * 3, strict=False):
            assert_same_crystal(row, atoms, 1e-6)
    torch.save(plain, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert [row.error for row in read_rows(tmp_path / "old.pth")] == [""] * 3


def test_broken_crystals_among_tensors_keep_their_place(tmp_path):
    content = tensors([bulk("Cu")] * 8)
    content["lengths"][0, 1] = -1
    content["lengths"][1, 1] = float("nan")
    content["angles"][2] = torch.tensor([170.0, 20.0, 20.0])
    content["frac_coords"][3, 0] = float("inf")
    content["atom_types"] = content["atom_types"].float()
    content["atom_types"][4], content["atom_types"][5] = 0, float("nan")
    content["num_atoms"][6], content["num_atoms"][7] = 2, 0
    torch.save(content, tmp_path / "eval_gen.pt")
    rows = list(read_rows(tmp_path / "eval_gen.pt"))
    words = ["not positive", "not finite", "enclose no cell", "not finite", "not an element", "not an element", "", "no atoms"]
    assert len(rows) == 8 and all(word in row.error and bool(word) == bool(row.error) for word, row in zip(words, rows, strict=True))
    assert rows[0].numbers.tolist() == [29]  # a broken answer still belongs to its formula
    wrong = {"num_atoms": torch.tensor([1] * 7), "lengths": torch.ones(3), "angles": torch.ones(2, 2, 3), "atom_types": "x"}
    for key, value in wrong.items():
        torch.save({**tensors([bulk("Cu")] * 8), key: value}, tmp_path / "wrong.pt")
        with pytest.raises(DataError, match=r"do not belong together|not a tensor of numbers"):
            list(read_rows(tmp_path / "wrong.pt"))


class Store:
    """Stands for the classes of PyTorch Geometric, omegaconf and whatever else lies in such files."""


class Getter:
    def __call__(self, *bases):
        return Store()


class Batch:
    def __init__(self, state):
        self.__dict__.update(state)

    def __reduce__(self):
        return Getter(), (Store, Store), dict(self.__dict__)


class AttributeDict(dict):
    pass


@pytest.fixture
def foreign(monkeypatch):
    """Names the classes above after modules that do not exist when the file is read."""
    module = types.ModuleType("foreign_package")
    for kind in (Store, Getter, Batch, AttributeDict):
        setattr(module, kind.__name__, kind)
        monkeypatch.setattr(kind, "__module__", "foreign_package")
    sys.modules["foreign_package"] = module
    yield lambda: sys.modules.pop("foreign_package", None)
    sys.modules.pop("foreign_package", None)


@pytest.mark.parametrize("layout", ["new", "old", "dict"])
def test_evaluations_of_other_programs_are_read_without_their_classes(tmp_path, foreign, layout):
    true = [*some_crystals(1, seed=1), bulk("NaCl", "rocksalt", a=5.6), bulk("Cu")]
    made = {key: torch.stack([value, value]) for key, value in tensors(true).items()}
    store = Store()
    if layout == "new":
        store.__dict__ = {"_mapping": tensors(true), "_parent": None}
        batch = Batch({"_store": store, "_slice_dict": defaultdict(dict, {"y": torch.zeros(3)}), "_num_graphs": 3})
    else:
        store.__dict__ = {**tensors(true), "batch": torch.zeros(3)}
        batch = store if layout == "old" else tensors(true)
    setting = argparse.Namespace(model_path=pathlib.PurePosixPath("run"), rate=np.float64(0.1), table=np.arange(3.0))
    setting.hparams = AttributeDict(a=1)
    torch.save({"eval_setting": setting, "input_data_batch": batch, **made, "time": 1.5}, tmp_path / "eval_recon.pt")
    foreign()
    rows, truth = list(read_rows(tmp_path / "eval_recon.pt")), list(read_truth(tmp_path / "eval_recon.pt"))
    assert [row.sample for row in rows] == [0, 0, 0, 1, 1, 1] and [row.sample for row in truth] == [0, 0, 0]
    for row, atoms in zip(rows + truth, true * 3, strict=True):
        assert_same_crystal(row, atoms, 1e-6)
    assert "foreign_package" not in sys.modules
    # nothing of what was allowed for this file stays allowed
    assert not any("foreign" in str(entry) for entry in torch.serialization.get_safe_globals())


def test_truth_is_asked_only_where_it_can_be(tmp_path):
    torch.save(tensors([bulk("Cu")]), tmp_path / "eval_gen.pt")
    with pytest.raises(DataError, match="holds no true structures"):
        list(read_truth(tmp_path / "eval_gen.pt"))
    torch.save({"input_data_batch": Atoms}, tmp_path / "odd.pt")
    with pytest.raises(DataError, match="does not hold crystals"):
        list(read_truth(tmp_path / "odd.pt"))
    (tmp_path / "a.cif").write_text("")
    with pytest.raises(DataError, match=r"only \.pt files"):
        list(read_truth(tmp_path / "a.cif"))


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_no_code_of_a_file_is_run(tmp_path):
    here = tmp_path / "ran"
    attacks = [
        Malicious(os.system, f"touch {here}"),
        Malicious(eval, f"open({str(here)!r}, 'w')"),
        Malicious(pathlib.Path.touch, here),
    ]
    for attack in attacks:
        for old in (False, True):
            torch.save(attack, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
            with pytest.raises(DataError, match=r"a\.pt") as refusal:
                list(read_rows(tmp_path / "a.pt"))
            assert "weights_only" not in str(refusal.value) and "\n" not in str(refusal.value)
    # beside tensors: refused, or read without being run
    torch.save({**tensors([bulk("Cu")]), "eval_setting": attacks[0]}, tmp_path / "a.pt")
    with pytest.raises(DataError, match="without running code"):
        list(read_rows(tmp_path / "a.pt"))
    torch.save({**tensors([bulk("Cu")]), "eval_setting": attacks[1]}, tmp_path / "a.pt")
    assert [row.error for row in read_rows(tmp_path / "a.pt")] == [""]
    np.savez(tmp_path / "a.npz", **{key: np.array([attacks[1]], dtype=object) for key in tensors([bulk("Cu")])})
    with pytest.raises(DataError, match="without running code"):
        list(read_rows(tmp_path / "a.npz"))
    assert not here.exists()


def test_classes_that_other_packages_allow_are_not_built(foreign, tmp_path):
    """torch_geometric, which some potentials import, allows its own classes in every file that is loaded afterwards."""
    from collections import defaultdict

    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    before = get_safe_globals()
    add_safe_globals([defaultdict])
    try:
        test_evaluations_of_other_programs_are_read_without_their_classes(tmp_path, foreign, "new")
        assert defaultdict in get_safe_globals()
    finally:
        clear_safe_globals()
        add_safe_globals(before)
