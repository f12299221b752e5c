"""Write asegen/assets/normalizers.json: how the normalizers of the 230 space groups exchange Wyckoff letters.

    python data/make_normalizers.py

Computed from the groups' own operations and Wyckoff positions (asegen/assets/wyckoff.json). An affine map (P, p) of the
primitive lattice belongs to the normalizer if it carries every operation (W, w) into one of the group: P W P⁻¹ must be a
rotation W' of the group, and ``p − W' p = w' − P w`` modulo the lattice. Matrices P with entries −1, 0 and 1 are tried. The normalizers
of triclinic and monoclinic groups have infinitely many others; these do nothing new to the letters (they act on them through their
entries modulo 2, and all classes are tried). tests/symmetry/test_normalizer.py compares with moyopy and with crystals.

Per group the file holds generators, each the letters that a, b, c, … turn into.
"""

import json
import sys
from itertools import product
from pathlib import Path

import numpy as np

from asegen.symmetry import Group, space_group
from asegen.symmetry.normalizer import closure

CANDIDATES = np.array(list(product((-1, 0, 1), repeat=9))).reshape(-1, 3, 3)
CANDIDATES = CANDIDATES[np.abs(np.rint(np.linalg.det(CANDIDATES))) == 1]
GENERIC = np.array([0.1374, 0.3291, 0.4517])
ZERO = 1e-6


def linear_parts(rotations: np.ndarray) -> np.ndarray:
    """Matrices that carry the point group into itself, shape (k, 3, 3)."""
    inverse = np.rint(np.linalg.inv(CANDIDATES)).astype(int)
    own = {r.tobytes() for r in rotations.astype(np.int64)}
    kept = np.ones(len(CANDIDATES), dtype=bool)
    for rotation in rotations:
        live = np.flatnonzero(kept)
        turned = (CANDIDATES[live] @ rotation @ inverse[live]).astype(np.int64)
        kept[live] = [t.tobytes() in own for t in turned]
    return CANDIDATES[kept]


def shifts(linear: np.ndarray, rotations: np.ndarray, translations: np.ndarray) -> list[np.ndarray]:
    """Translations p that make a linear part a map of the normalizer, modulo the lattice and continuous translations."""
    inverse = np.rint(np.linalg.inv(linear)).astype(int)
    number = {r.tobytes(): k for k, r in enumerate(rotations.astype(np.int64))}
    images = [number[(linear @ r @ inverse).astype(np.int64).tobytes()] for r in rotations]
    equations = np.concatenate([np.eye(3, dtype=int) - rotations[k] for k in images])
    wanted = np.concatenate([translations[k] - linear @ t for k, t in zip(images, translations, strict=True)])
    left, diagonal, right = smith(equations)
    wanted = left @ wanted
    rank = int((diagonal != 0).sum())
    rest = wanted[rank:]
    if np.abs(rest - np.rint(rest)).max(initial=0) > ZERO:
        return []
    steps = [(wanted[k] + np.arange(abs(diagonal[k]))) / diagonal[k] if k < rank else np.zeros(1) for k in range(3)]
    return [right @ np.array(q) for q in product(*steps)]


def smith(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unimodular ``left`` (m, m) and ``right`` (3, 3) with ``left @ matrix @ right`` diagonal, and that diagonal, zeros last."""
    m = matrix.astype(object).copy()
    left, right = np.eye(len(m), dtype=object), np.eye(3, dtype=object)
    for k in range(3):
        while True:
            spots = [(abs(m[i, j]), i, j) for i in range(k, len(m)) for j in range(k, 3) if m[i, j]]
            if not spots:
                break
            _, i, j = min(spots)
            m[[k, i]], left[[k, i]] = m[[i, k]], left[[i, k]]
            m[:, [k, j]], right[:, [k, j]] = m[:, [j, k]], right[:, [j, k]]
            for i in range(k + 1, len(m)):
                times = m[i, k] // m[k, k]
                m[i], left[i] = m[i] - times * m[k], left[i] - times * left[k]
            for j in range(k + 1, 3):
                times = m[k, j] // m[k, k]
                m[:, j], right[:, j] = m[:, j] - times * m[:, k], right[:, j] - times * right[:, k]
            if not m[k + 1 :, k].any() and not m[k, k + 1 :].any():
                break
    return left.astype(float), np.array([int(m[k, k]) for k in range(3)]), right.astype(float)


def exchange(group: Group, linear: np.ndarray, shift: np.ndarray) -> str:
    """Letters of the positions that a map of the normalizer carries a, b, c, … into."""
    primitive = group.primitive
    found = ""
    for position in group.positions:
        # a generic point of the position, carried along (columns: f_conventional = Mᵀ f_primitive)
        place = position.point(GENERIC[: position.dof]) @ np.linalg.inv(primitive)
        point = (linear @ place + shift) @ primitive
        same = [p for p in group.positions if p.multiplicity == position.multiplicity and p.dof == position.dof]
        found += next(p.letter for p in same if p.parameters_of(point, 1e-6) is not None)
    assert sorted(found) == sorted(group.letters), (group, found)
    return found


def generators(group: Group) -> list[str]:
    """A few exchanges that all others are made of."""
    rotations, translations = group.setting.operations(primitive=True)
    chosen: list[str] = []
    known = {group.letters}
    for linear in linear_parts(rotations):
        for shift in shifts(linear, rotations, translations):
            found = exchange(group, linear, shift)
            if found not in known:
                chosen.append(found)
                known = set(closure(group.letters, chosen))
    return chosen


def main() -> None:
    table = {}
    for number in range(1, 231):
        group = space_group(number)
        table[str(number)] = generators(group)
        print(number, group.symbol, table[str(number)], len(closure(group.letters, table[str(number)])), flush=True)
    lines = ",\n".join(f'"{number}": {json.dumps(entry)}' for number, entry in table.items())
    path = Path(__file__).parents[1] / "asegen" / "assets" / "normalizers.json"
    path.write_text(f'{{"source": "made by data/make_normalizers.py",\n{lines}}}\n')


if __name__ == "__main__":
    sys.exit(main())
