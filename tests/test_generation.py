import numpy as np
import pytest

from asegen import free_crystal, generate, random_crystal
from asegen.errors import CheckpointError, FormulaError
from asegen.prior import atomic_volumes


def same(a, b, tolerance=1e-5) -> bool:
    delta = a.get_scaled_positions(wrap=False) - b.get_scaled_positions(wrap=False)
    apart = max(np.abs(delta - np.round(delta)).max(), np.abs(a.cell.array - b.cell.array).max())
    return bool((a.numbers == b.numbers).all() and apart < tolerance)


def test_formulas_are_flat_in_order_and_taken_as_written(small):
    crystals = generate(["Sr2Ti2O6", "NaCl", "MgO"], n=2, seed=1, checkpoint=small)
    assert [len(a) for a in crystals] == [10, 10, 2, 2, 2, 2]
    assert [a.get_chemical_formula() for a in crystals[::2]] == ["O6Sr2Ti2", "ClNa", "MgO"]
    assert all(a.pbc.all() and a.info["checkpoint"] == "small" and a.info["checkpoint_hash"] == small.hash for a in crystals)
    assert len({a.info["seed"] for a in crystals}) == 6


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_same_seed_gives_the_same_crystals_for_every_batch_size(small, batch_size):
    formulas = ["SrTiO3", "NaCl", "CaF2", "KMgF3"]
    whole = generate(formulas, n=2, seed=3, checkpoint=small)
    parts = generate(formulas, n=2, seed=3, checkpoint=small, batch_size=batch_size)
    assert all(same(a, b) for a, b in zip(whole, parts, strict=True))
    assert not same(whole[0], generate(formulas, n=2, seed=4, checkpoint=small)[0], 1e-2)


def test_more_crystals_do_not_change_the_first_ones(small):
    few, many = generate("NaCl", n=2, seed=0, checkpoint=small), generate("NaCl", n=5, seed=0, checkpoint=small)
    assert all(same(a, b) for a, b in zip(few, many, strict=False))


def test_de_novo_decides_every_element(small):
    crystals = generate(n=12, seed=0, checkpoint=small)
    assert {len(a) for a in crystals} == {2, 4}
    assert all((a.numbers > 0).all() and set(a.numbers) <= small.elements for a in crystals)
    again = generate(n=12, seed=0, checkpoint=small, batch_size=3)
    assert all(same(a, b) for a, b in zip(crystals, again, strict=True))


def test_units_of_a_formula(small):
    crystals = generate("Li2O", n=2, units=[1, 2], checkpoint=small)
    assert [len(a) for a in crystals] == [3, 3, 6, 6]


def test_finished_crystals_are_not_made_again(small):
    whole = generate("NaCl", n=4, seed=0, checkpoint=small)
    seen = []
    again = generate("NaCl", n=4, seed=0, checkpoint=small, done={0: whole[0], 2: whole[2]}, on_batch=seen.extend)
    assert sorted(position for position, _ in seen) == [1, 3]
    assert again[0] is whole[0] and all(same(a, b) for a, b in zip(again, whole, strict=True))


def test_progress_reaches_the_end(small):
    seen = []
    generate("NaCl", n=3, checkpoint=small, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"formula": "NaCl", "n": 0}, FormulaError, "n = 0"),
        ({"formula": "Na-1Cl"}, FormulaError, "positive"),
        ({"formula": "NaCl", "units": 11}, FormulaError, "22 atoms.*up to 20"),
        ({"formula": "OgO"}, FormulaError, "Og"),
        ({"formula": []}, FormulaError, "empty"),
        ({"formula": None, "units": 2}, FormulaError, "units have no meaning"),
        ({"formula": "NaCl", "steps": 0}, ValueError, "steps = 0"),
        ({"formula": "NaCl", "seed": -1}, ValueError, "seed = -1"),
        ({"formula": "NaCl", "checkpoint": "nonsense"}, CheckpointError, "no checkpoint 'nonsense'"),
        ({"formula": "NaCl", "precision": "half"}, Exception, "unknown precision"),
    ],
)
def test_bad_requests_say_what_is_wrong(small, arguments, error, words):
    with pytest.raises(error, match=words):
        generate(**{"checkpoint": small, **arguments})


def test_random_crystals_have_sane_volumes_and_depend_on_the_seed_alone():
    volumes = np.array([random_crystal("SrTiO3", seed=s).get_volume() for s in range(300)])
    expected = sum(atomic_volumes()[z] for z in (38, 22, 8, 8, 8))
    assert abs(np.log(volumes / expected).mean()) < 0.05 and np.log(volumes / expected).std() < 0.25
    assert volumes.min() > 20
    a, b = random_crystal("SrTiO3", seed=5), random_crystal("SrTiO3", seed=5)
    assert same(a, b, 1e-15) and a.info["seed"] == 5
    fractions = np.concatenate([random_crystal("SrTiO3", seed=s).get_scaled_positions() for s in range(300)])
    assert abs(fractions.mean() - 0.5) < 0.02 and abs(fractions.std() - 12**-0.5) < 0.01
    with pytest.raises(FormulaError, match="Og"):
        random_crystal("OgO", seed=0)


def test_free_starts_follow_the_table_of_the_data(small):
    sizes = [len(free_crystal(small, seed=s)) for s in range(200)]
    assert set(sizes) == {2, 4} and 70 < sizes.count(2) < 130
    start = free_crystal(small, seed=0)
    assert (start.numbers == 0).all() and 9 <= start.info["reference_volume"] / len(start) <= 21
