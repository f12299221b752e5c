import json

import numpy as np
import pytest
import torch
from gallery import same_crystal
from safetensors.torch import load_file, save_file

from asegen import load_prototypes
from asegen.checkpoint import packaged, read_header
from asegen.errors import CheckpointError, FormulaError
from asegen.formulas import numbers_of
from asegen.prototypes.model import Candidate, packaged_prototypes, read_prototypes_header, save_prototypes
from asegen.report import space_group as group_of
from asegen.symmetry import space_group


def told(candidates: list[Candidate]) -> list:
    return [(c.prototype.number, sorted(c.sites), f"{c.probability:.4e}", c.known) for c in candidates]


@pytest.mark.parametrize(
    ("formula", "number"),
    [("SrTiO3", 221), ("NaCl", 225), ("CaF2", 225), ("GaN", 186), ("Ga2N2", 186), ("KMgF3", 221), ("MgO", 225), ("SnO2", 136)],
)
def test_well_known_crystals_come_first_or_nearly_so(packaged_mp20, formula, number):
    candidates, _ = packaged_mp20.rank(formula)
    assert number in [c.prototype.number for c in candidates[: 1 if formula in ("SrTiO3", "NaCl", "GaN", "Ga2N2", "KMgF3") else 3]]


def test_of_cells_of_one_size_too(packaged_mp20):
    assert 136 in [c.prototype.number for c in packaged_mp20.rank("TiO2", units=2)[0][:3]]
    assert packaged_mp20.rank("GaN", units=1)[0][0].prototype.number == 216


def test_strontium_titanate_is_a_cubic_perovskite(packaged_mp20):
    best = packaged_mp20.rank("SrTiO3")[0][0]
    assert sorted(element for element, _ in best.sites) == ["O", "Sr", "Ti"]
    atoms, symmetry = best.crystal()
    assert group_of(atoms) == 221 and len(atoms) == 5 and symmetry.num_sites == 3
    assert atoms.cell.lengths() == pytest.approx([3.93] * 3, rel=0.02)
    assert atoms.get_volume() == pytest.approx(best.volume, rel=1e-6)
    titanium, strontium = atoms.positions[atoms.numbers == 22][0], atoms.positions[atoms.numbers == 38][0]
    away = [
        np.linalg.norm((atoms.positions[atoms.numbers == 8] - p) @ np.linalg.inv(atoms.cell) % 1, axis=1) for p in (titanium, strontium)
    ]
    assert max(away[0]) < 0.51 < max(away[1])  # titanium has the six oxygens at half an edge


@pytest.mark.parametrize("formulas", [("SrTiO3", "TiSrO3", "O3TiSr"), ("Ga2N2", "N2Ga2"), ("Li2FeO2", "O2Li2Fe", "FeO2Li2")])
def test_the_order_of_the_elements_does_not_matter(packaged_mp20, formulas):
    results = [packaged_mp20.rank(formula) for formula in formulas]
    for candidates, new in results[1:]:
        assert new == pytest.approx(results[0][1], rel=1e-5)
        assert told(candidates) == told(results[0][0])
    numbers = np.array([22, 8, 38, 8, 8])
    assert told(packaged_mp20.rank(numbers)[0]) == told(packaged_mp20.rank("SrTiO3")[0])


@pytest.mark.parametrize("formula", ["SrTiO3", "NaCl", "Li2FeO2", "Mg2Al4O8", "YBa2Cu3O7", "Si4", "Fe7O"])
@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("order", ["stable", "likely"])
def test_probabilities_and_novelty_sum_to_one(packaged_mp20, formula, new, order):
    candidates, novelty = packaged_mp20.rank(formula, new=new, order=order)
    total = sum(c.probability for c in candidates) + novelty
    assert candidates and 0 < novelty < 1 and total == pytest.approx(1, abs=1e-6)
    chances = [c.probability for c in candidates]
    assert min(chances) >= 0 and chances == sorted(chances, reverse=True)
    for c in candidates:
        numbers = sorted(c.elements[s] for s, n in enumerate(c.prototype.counts) for _ in range(n))
        reduced = sorted(numbers_of(formula).tolist() * (len(numbers) // len(numbers_of(formula)) or 1))
        if len(numbers) % len(numbers_of(formula)) == 0:
            assert numbers == reduced
        assert len(numbers) == c.units * len(numbers_of(formula)) // np.gcd.reduce(np.unique(numbers_of(formula), return_counts=True)[1])
    # no candidate twice
    predicted = [c for c in candidates if not c.known]
    assert len({(id(c.prototype), c.elements) for c in predicted}) == len(predicted)


def test_known_crystals_come_by_energy_unless_new_ones_are_asked_for(packaged_mp20):
    for formula in ("ZrO2", "CsCl", "Li2FeO2", "TiO2"):
        candidates, _ = packaged_mp20.rank(formula)
        known = [c for c in candidates if c.known]
        energies = [c.hull for c in known]
        assert len(known) > 1 and energies == sorted(energies) and candidates[0].known
        assert all(np.isfinite(c.hull) and c.hull_source in ("published", "computed") for c in known)
        fresh, _ = packaged_mp20.rank(formula, new=True)
        assert fresh and not any(c.known for c in fresh)
        plain = [c.probability for c in packaged_mp20.rank(formula, new=True, diversity=0)[0]]
        assert plain == sorted(plain, reverse=True)


def test_known_crystals_have_their_own_parameters(packaged_mp20):
    for formula in ("ZrO2", "CsCl", "SrTiO3"):
        for c in (c for c in packaged_mp20.rank(formula)[0] if c.known):
            assert any(np.array_equal(c.values, row) for row in c.prototype.own)
            row = next(k for k, row in enumerate(c.prototype.own) if np.array_equal(c.values, row))
            assert sorted(c.prototype.examples[row].tolist()) == sorted(c.elements)
            assert c.hull == pytest.approx(c.prototype.hull[row])


def test_known_means_that_the_table_holds_the_composition(packaged_mp20):
    for formula in ("NaCl", "SrTiO3", "Ga2N2"):
        for candidate in packaged_mp20.rank(formula)[0]:
            rows = {tuple(row) for row in candidate.prototype.examples.tolist()}
            swaps = [range(len(candidate.elements)), *candidate.prototype.swaps]
            assert candidate.known == any(tuple(candidate.elements[k] for k in swap) in rows for swap in swaps)


def test_n_cuts_the_list_and_unknown_counts_have_none(packaged_mp20):
    whole, new = packaged_mp20.rank("SrTiO3")
    few, again = packaged_mp20.rank("SrTiO3", 3)
    assert told(few) == told(whole[:3]) and new == again
    assert packaged_mp20.rank("Li3Bi7O5") == ([], 1.0)
    with pytest.raises(FormulaError, match="Xx"):
        packaged_mp20.rank("Xx2O")
    with pytest.raises(ValueError, match="diversity = 2"):
        packaged_mp20.rank("NaCl", diversity=2)


def test_every_candidate_is_a_crystal_of_its_group(packaged_mp20):
    for formula in ("SrTiO3", "Mg2Al4O8", "Li2FeO2", "Zr4O8"):
        for candidate in packaged_mp20.rank(formula)[0][:12]:
            atoms, symmetry = candidate.crystal()
            assert len(symmetry.site) == len(atoms) and np.isfinite(atoms.positions).all()
            group = space_group(candidate.prototype.number)
            labels = [label for _, label in candidate.sites]
            assert symmetry.multiplicity.tolist() == [group.position(label).multiplicity_primitive for label in labels]
            found = group_of(atoms, symprec=1e-3)
            assert len(space_group(found).rotations) * len(space_group(found).setting.centrings) >= len(group.rotations)


def test_a_model_survives_saving(packaged_mp20, tmp_path):
    path = tmp_path / "again.safetensors"
    save_prototypes(path, packaged_mp20.table, packaged_mp20.ranker, {k: v for k, v in packaged_mp20.header.items() if k != "format"})
    again = load_prototypes(path)
    assert again.name == "mp20" and len(again.hash) == 17 and again.hash[0] == "c"
    assert again.header == packaged_mp20.header and read_prototypes_header(path) == again.header
    assert told(again.rank("SrTiO3")[0]) == told(packaged_mp20.rank("SrTiO3")[0])
    assert same_crystal(again.rank("Mg2Al4O8")[0][0].crystal()[0], packaged_mp20.rank("Mg2Al4O8")[0][0].crystal()[0], 1e-9)
    assert load_prototypes(path) is again and load_prototypes(again) is again
    ranker = packaged_mp20.ranker
    assert not ranker.training and not any(p.requires_grad for p in ranker.parameters())


def test_foreign_damaged_and_missing_files_say_so(tmp_path, small_path):
    with pytest.raises(CheckpointError, match=r"no prototype model 'missing'.*packaged names .*mp20"):
        load_prototypes("missing")
    with pytest.raises(CheckpointError, match="holds a system 'diffusion', not a prototype model"):
        load_prototypes(small_path)
    source = packaged_prototypes()["mp20"]
    content = source.read_bytes()
    broken = tmp_path / "broken.safetensors"
    for part in (content[: len(content) // 2], content[:5], b"", b"x" * 1000):
        broken.write_bytes(part)
        with pytest.raises(CheckpointError, match="damaged or no prototype model"):
            load_prototypes(broken)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(CheckpointError, match="no prototype model"):
        load_prototypes(foreign)
    arrays, header = load_file(source), read_prototypes_header(source)

    def load(arrays, header):
        save_file(arrays, foreign, metadata={"asegen": json.dumps(header)})
        return load_prototypes(foreign)

    with pytest.raises(CheckpointError, match="prototype format 99, this asegen reads 1 to 2"):
        load(arrays, {**header, "format": 99})
    for change in (
        {"table.mean": arrays["table.mean"][:-1]},
        {"table.letters": torch.full_like(arrays["table.letters"], 200)},
        {"table.number": torch.full_like(arrays["table.number"], 250)},
        {"ranker.novelty.weight": torch.zeros(2, 2)},
        {"ranker.surplus": torch.zeros(2)},
    ):
        with pytest.raises(CheckpointError, match="is damaged: "):
            load({**arrays, **change}, header)
    with pytest.raises(CheckpointError, match="is damaged"):
        load({k: v for k, v in arrays.items() if k != "table.elements"}, header)
    with pytest.raises(CheckpointError, match="is damaged"):
        load(arrays, {k: v for k, v in header.items() if k != "ranker"})


def test_packaged_models_say_where_they_come_from_and_belong_to_a_checkpoint():
    found = packaged_prototypes()
    assert "mp20" in found and sum(path.stat().st_size for path in found.values()) < 20e6
    for name, path in found.items():
        header = read_prototypes_header(path)
        assert header["name"] == name and name in packaged()
        assert header["data"]["licence"] and header["data"]["prototypes"] > 10
        assert header["data"]["max_atoms"] >= read_header(packaged()[name])["data"]["max_atoms"]
        model = load_prototypes(name)
        assert len(model.table) == header["data"]["prototypes"]
        assert sum(len(p.examples) for p in model.table.prototypes) == header["data"]["count"]


def test_a_space_group_narrows_the_election(packaged_mp20):
    everyone, _ = packaged_mp20.rank("MnAlCu2", diversity=0.0)
    seen = {c.prototype.number for c in everyone}
    family = packaged_mp20.table.family((2, 1, 1))
    # a group whose prototypes are too improbable to be looked at among all others
    number = next(n for k in family.members if (n := packaged_mp20.table.prototypes[k].number) not in seen)
    narrowed, novelty = packaged_mp20.rank("MnAlCu2", spacegroup=number, diversity=0.0)
    assert narrowed and all(c.prototype.number == number for c in narrowed)
    assert sum(c.probability for c in narrowed) + novelty == pytest.approx(1, abs=1e-5)
    assert packaged_mp20.rank("MnAlCu2", spacegroup="Ia-3d") == ([], 1.0)
