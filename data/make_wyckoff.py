"""Write asegen/assets/wyckoff.json, the Wyckoff positions of the 230 space groups, from what spglib and moyopy know.

    python data/make_wyckoff.py

Neither package hands its table out, but moyopy names the representative coordinates ("x,x,1/4") of the positions that the atoms
of a crystal occupy, in the setting of International Tables. So each group is shown crystals in which generic atoms on the
general position leave no other symmetry, and one further orbit sits on a special point; points of the grid with spacing 1/24
are tried until every letter has been seen (the letter of the general position says how many there are).
tests/symmetry/test_groups.py compares every entry with spglib and with the group's own operations.
"""

import json
import string
import sys
from pathlib import Path

import moyopy
import numpy as np
import spglib

LETTERS = string.ascii_lowercase + "A"
STANDARD = ("", "b", "b1", "H", "2")  # ITA: unique axis b, hexagonal axes, origin choice 2
LATTICES = ((2, (5.1, 6.3, 7.7, 83, 95, 104)), (15, (5.1, 6.3, 7.7, 90, 104, 90)), (74, (5.1, 6.3, 7.7, 90, 90, 90)),
            (142, (5.1, 5.1, 7.7, 90, 90, 90)), (194, (5.1, 5.1, 7.7, 90, 90, 120)), (230, (6, 6, 6, 90, 90, 90)))  # fmt: skip
GENERAL = (np.array([0.0713, 0.1277, 0.2139]), np.array([0.4179, 0.3451, 0.0523]))


def standard_halls() -> dict[int, int]:
    halls: dict[int, int] = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        if kind.choice in STANDARD:
            halls.setdefault(kind.number, hall)
    return halls


def orbit(rotations: np.ndarray, translations: np.ndarray, point: np.ndarray) -> np.ndarray:
    images = (rotations @ point + translations) % 1
    distance = images[:, None] - images[None]
    same = np.abs(distance - distance.round()).max(-1) < 1e-6
    return images[same.argmax(1) == np.arange(len(images))]


def crystal(hall: int, point: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from ase.geometry import cellpar_to_cell

    number = spglib.get_spacegroup_type(hall).number
    lattice = cellpar_to_cell(next(lattice for last, lattice in LATTICES if number <= last))
    operations = spglib.get_symmetry_from_database(hall)
    groups = [orbit(operations["rotations"], operations["translations"], p) for p in (*GENERAL, point)]
    species = np.concatenate([np.full(len(g), k + 1) for k, g in enumerate(groups)])
    return lattice, np.concatenate(groups), species


def special_points(hall: int, random: np.random.Generator) -> list[np.ndarray]:
    """One point of the grid of each kind that the stabiliser can tell apart, many of each, the most symmetric first."""
    operations = spglib.get_symmetry_from_database(hall)
    rotations, shifts = operations["rotations"].astype(int), np.rint(24 * operations["translations"]).astype(int)
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), -1).reshape(-1, 3)
    fixed = np.stack([((grid @ r.T + t - grid) % 24 == 0).all(1) for r, t in zip(rotations, shifts, strict=True)], 1)
    special = np.flatnonzero(fixed.sum(1) > 1)
    projectors = np.einsum("pg,gij->pij", fixed[special].astype(float), rotations.astype(float)).reshape(-1, 9)
    _, kind = np.unique(np.concatenate([fixed[special].sum(1)[:, None], projectors], 1), axis=0, return_inverse=True)
    rounds: list[list[np.ndarray]] = []
    for k in np.unique(kind):
        members = random.permutation(special[kind.ravel() == k])
        rounds.append([grid[m] / 24 for m in members[:60]])
    return [points[i] for i in range(60) for points in rounds if i < len(points)]


def positions_of(number: int, hall: int) -> list[list]:
    random = np.random.default_rng(number)
    found: dict[str, list] = {}
    expected = LETTERS.index(spglib.get_symmetry_dataset(crystal(hall, random.random(3)), symprec=1e-4, hall_number=hall).wyckoffs[0])
    for point in [random.random(3), *special_points(hall, random)]:
        if len(found) > expected:
            break
        lattice, places, species = crystal(hall, point)
        cell = moyopy.Cell(lattice.tolist(), places.tolist(), species.tolist())
        data = moyopy.MoyoDataset(cell, symprec=1e-4, setting=moyopy.Setting.standard())
        assert (data.number, data.hall_number) == (number, hall), (number, data.number, data.hall_number)
        for _, sequence in data.normalizer_wyckoff_positions().coset_representatives:
            for w in sequence:
                found[w.letter] = [w.letter, w.multiplicity, w.site_symmetry, w.coordinates]
    missing = set(LETTERS[: expected + 1]) - set(found)
    assert not missing and len(found) == expected + 1, f"group {number}: letters {missing} not seen"
    return [found[letter] for letter in LETTERS[: expected + 1]]


def main() -> None:
    table = {}
    for number, hall in standard_halls().items():
        symbol = spglib.get_spacegroup_type(hall).international_short
        table[str(number)] = {"hall": hall, "symbol": symbol, "positions": positions_of(number, hall)}
        print(number, hall, len(table[str(number)]["positions"]), flush=True)
    total = sum(len(entry["positions"]) for entry in table.values())
    assert total == 1731, total
    source = f"spglib {spglib.__version__}, moyopy {moyopy.__version__}; made by data/make_wyckoff.py"
    lines = ",\n".join(f'"{number}": {json.dumps(entry, separators=(",", ":"))}' for number, entry in table.items())
    path = Path(__file__).parents[1] / "asegen" / "assets" / "wyckoff.json"
    path.write_text(f'{{"source": "{source}",\n{lines}}}\n')


if __name__ == "__main__":
    sys.exit(main())
