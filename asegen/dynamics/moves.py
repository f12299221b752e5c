"""Random moves of a crystal that keep its constraints: what a hop between basins begins with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from scipy.linalg import expm

from ..errors import AsegenError
from ..symmetry.constraint import SpaceGroup

KINDS = ("displace", "relocate", "swap", "strain")


@dataclass(frozen=True)
class Moves:
    """How often which move is tried, and how large it is.

    The first four are weights: a move that the crystal does not allow is left out, the others are tried in proportion to them.
    """

    displace: float = 1.0
    """Displace all atoms."""
    relocate: float = 0.5
    """Put one atom anywhere in the cell."""
    swap: float = 0.5
    """Exchange two unlike atoms."""
    strain: float = 0.25
    """Strain the cell, atoms along with it; tried only where the cell may move."""
    step: float = 1.0
    """Every component of a displacement is uniform between −step and step, Å."""
    strain_size: float = 0.1
    """Standard deviation of the components of the log-strain."""

    def __post_init__(self) -> None:
        if not all(np.isfinite(value) and value >= 0 for value in self.values().values()):
            raise ValueError(f"weights and sizes of moves must be numbers of at least 0, not {self.values()}")

    def values(self) -> dict[str, float]:
        """As plain numbers."""
        return {name: float(value) for name, value in asdict(self).items()}


class Mover:
    """Moves for one crystal.

    Parameters
    ----------
    atoms : ase.Atoms
        Its constraints decide which atoms move. Under a :class:`asegen.SpaceGroup` atoms move with their partners, and a swap exchanges
        the elements of two whole sites with equally many atoms.
    moves : Moves
    cell : bool
        Whether the cell may be strained.

    Raises
    ------
    AsegenError
        No move is left.
    """

    def __init__(self, atoms: Atoms, moves: Moves, cell: bool) -> None:
        self.moves = moves
        self.group = next((c for c in atoms.constraints if isinstance(c, SpaceGroup)), None)
        self.free = _free(atoms)
        possible = {
            "displace": len(self.free) > 0 and moves.step > 0,
            "relocate": len(self.free) > 0 and atoms.cell.rank == 3,
            "swap": len(self.pairs(atoms)) > 0,
            "strain": cell and moves.strain_size > 0,
        }
        weights = np.array([getattr(moves, kind) * possible[kind] for kind in KINDS])
        if weights.sum() == 0:
            raise AsegenError("no move is left: the constraints hold every atom, or the moves that are possible have no weight")
        self.weights = weights / weights.sum()

    def draw(self, random: np.random.Generator) -> str:
        """One of `KINDS`."""
        return str(random.choice(KINDS, p=self.weights))

    def apply(self, kind: str, atoms: Atoms, random: np.random.Generator) -> None:
        """Make a move, in place.

        Raises
        ------
        AsegenError
            A constraint does not let two atoms be swapped.
        """
        move: Callable[[Atoms, np.random.Generator], None] = getattr(self, kind)
        move(atoms, random)

    def displace(self, atoms: Atoms, random: np.random.Generator) -> None:
        """Displace all atoms."""
        atoms.set_positions(atoms.positions + random.uniform(-self.moves.step, self.moves.step, (len(atoms), 3)))

    def relocate(self, atoms: Atoms, random: np.random.Generator) -> None:
        """Put one atom anywhere in the cell."""
        atom = int(random.choice(self.free))
        step = (random.random(3) - 0.5) @ atoms.cell.array
        if self.group is not None:
            # The step is averaged over all atoms of the site, of which the others stay: so that the atom comes to where it is sent.
            symmetry = self.group.symmetry
            step = step * float(symmetry.multiplicity[symmetry.site[atom]])
        positions = atoms.get_positions()
        positions[atom] += step
        atoms.set_positions(positions)

    def swap(self, atoms: Atoms, random: np.random.Generator) -> None:
        """Exchange two unlike atoms, or the elements of two sites."""
        pairs = self.pairs(atoms)
        first, second = pairs[int(random.integers(len(pairs)))]
        if self.group is not None:
            # No atom moves (sites are where the group wants them); everything else that belongs to the atoms changes place.
            for name, values in atoms.arrays.items():
                if name != "positions":
                    values[first], values[second] = values[second].copy(), values[first].copy()
            relabel(atoms)
            return
        positions = atoms.get_positions()
        wanted = positions.copy()
        wanted[first], wanted[second] = positions[second], positions[first]
        atoms.set_positions(wanted)
        if not np.allclose(atoms.positions, wanted, atol=1e-6):
            raise AsegenError("a constraint does not let these atoms be swapped")

    def strain(self, atoms: Atoms, random: np.random.Generator) -> None:
        """Strain the cell, atoms along with it."""
        noise = random.normal(scale=self.moves.strain_size, size=(3, 3))
        symmetric = np.tril(noise) + np.tril(noise, -1).T
        atoms.set_cell(atoms.cell.array @ expm(symmetric), scale_atoms=True)

    def pairs(self, atoms: Atoms) -> list[tuple[np.ndarray, np.ndarray]]:
        """What can be swapped: indices of one and of the other side."""
        numbers = atoms.numbers
        if self.group is None:
            groups = [np.array([i]) for i in self.free]
        else:
            held = {int(i) for c in atoms.constraints if isinstance(c, FixAtoms) for i in c.get_indices()}
            site = self.group.symmetry.site.numpy()
            groups = [np.flatnonzero(site == k) for k in range(self.group.symmetry.num_sites)]
            groups = [members for members in groups if held.isdisjoint(members.tolist())]
        return [
            (a, b) for k, a in enumerate(groups) for b in groups[k + 1 :] if len(a) == len(b) and numbers[a[0]] != numbers[b[0]]
        ]


def relabel(atoms: Atoms) -> None:
    """Bring the elements that a `SpaceGroup` notes beside its sites up to date."""
    for constraint in atoms.constraints:
        if isinstance(constraint, SpaceGroup):
            first = constraint.symmetry.first.tolist()
            constraint.sites = [(atoms[i].symbol, label) for i, (_, label) in zip(first, constraint.sites, strict=True)]


def _free(atoms: Atoms) -> np.ndarray:
    """Atoms that go somewhere when they are pushed, whatever the constraints are."""
    probe = atoms.copy()
    probe.set_positions(atoms.positions + np.random.default_rng(0).normal(scale=0.05, size=(len(atoms), 3)))
    return np.flatnonzero(np.linalg.norm(probe.positions - atoms.positions, axis=1) > 1e-6)
