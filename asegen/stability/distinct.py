"""Results of many relaxations that are the same crystal, counted as one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from ..metrics.cache import Cache
from ..metrics.crystalset import crystal_set
from ..metrics.pairs import PYMATGEN, Comparer, Tolerances

SAME_ENERGY = 0.001
"""Crystals that differ by more than this, eV/atom, are two structures."""


@dataclass(frozen=True)
class Found:
    """A structure that a search has found, perhaps many times."""

    atoms: Atoms = field(repr=False)
    """The lowest of the relaxations that lead to it, with energy, forces and stress."""
    energy_per_atom: float
    """eV."""
    spacegroup: int
    """International number by spglib at symprec 0.1 Å."""
    starts: tuple[int, ...]
    """Positions of the starts that lead to it, ascending."""
    seed: int
    """Of the first of these starts."""

    @property
    def times(self) -> int:
        """How many starts lead to it."""
        return len(self.starts)


def leaders(
    crystals: Sequence[Atoms],
    energies: Sequence[float],
    kinds: Sequence[Hashable] | None = None,
    *,
    within: float = SAME_ENERGY,
    tolerances: Tolerances = PYMATGEN,
    cache: Cache | None = None,
    processes: int | None = None,
) -> list[int]:
    """Which crystals are the same structure.

    From the lowest energy up, a crystal either is the same as the leader of a structure (its energy is within the limit and
    StructureMatcher says so), or leads a new one.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
    energies : sequence of float, eV/atom
    kinds : sequence, optional
        Crystals whose kinds differ are never the same. Default: the same kind for all, which then must be of one formula.
    within : float, eV/atom
    tolerances : Tolerances
    cache : Cache, optional
        Where comparisons are kept; default: nowhere.
    processes : int, optional
        Default: one per core.

    Returns
    -------
    list of int
        For each crystal the index of its leader (its own for leaders). A crystal that cannot be compared leads itself.
    """
    energy = np.asarray(energies, dtype=float)
    names = list(kinds) if kinds is not None else [None] * len(energy)
    number = {kind: k for k, kind in enumerate(dict.fromkeys(names))}
    kind = np.array([number[name] for name in names], dtype=int)
    order = np.lexsort((energy, kind))
    found = list(range(len(crystals)))
    # crystals that no chain of steps below the limit connects are never the same
    breaks = np.flatnonzero((np.diff(energy[order]) > within) | (np.diff(kind[order]) != 0)) + 1
    waiting = [part.tolist() for part in np.split(order, breaks) if len(part) > 1]
    if not waiting:
        return found
    given = crystal_set(list(crystals))
    comparer = Comparer(cache or Cache(keep=False), processes)
    reduced = comparer.reduced(given, [i for part in waiting for i in part])
    waiting = [[i for i in part if i in reduced] for part in waiting]
    while waiting := [part for part in waiting if len(part) > 1]:
        pairs = [(part[0], i) for part in waiting for i in part[1:] if energy[i] - energy[part[0]] <= within]
        items = [(given.keys[a], reduced[a], given.keys[b], reduced[b]) for a, b in pairs]
        same = comparer.fit(items, tolerances, "merging") if items else np.zeros(0, dtype=bool)
        merged = {b: a for (a, b), is_same in zip(pairs, same, strict=True) if is_same}
        for b, a in merged.items():
            found[b] = a
        waiting = [[i for i in part[1:] if i not in merged] for part in waiting]
    return found
