"""Structures from their descriptors: global search on a grid, exact local steps, exchange of elements, until the loss says solved.

StructRepDiff starts six times from random positions and descends by Adam, with random hops (Algorithm 2). Here a round is

1. annealing on a grid (:mod:`asegen.dynamics.grid_search`) of a smooth, short descriptor, many trials at once,
2. Levenberg-Marquardt steps on the smooth descriptor, then on the full one (:mod:`asegen.dynamics.levenberg`),
3. exchange of unlike atoms in the best trials, and more steps,

and rounds go on until the rms residual is below `SOLVED`. Prototypes of the formula, laid into the given cell, may come first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from ase import Atoms
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .crystals import CrystalBatch
from .descriptors.ead import EAD, OURS
from .descriptors.target import Pooling, Target, compared_numbers
from .dynamics.grid_search import GridSearch, grid_of
from .dynamics.levenberg import fit
from .errors import DescriptorError

SMOOTH = EAD(orders=(0, 1, 2), radial=tuple((0.7, 1.0 + 0.9 * k) for k in range(6)), cutoff=6.0, directions=True)
"""Wide Gaussians: a landscape with few valleys, for the search."""
SPACINGS = (0.5, 0.3, 0.4)
"""Grid spacings of successive rounds, Å. On a coarse grid all trials may end in one wrong state that fits it better than the true one."""
SOLVED = 5e-3
"""Rms residual of a solution."""


@dataclass(frozen=True)
class Rebuilt:
    """What a search came to."""

    atoms: Atoms
    """The best structure; atoms ordered by atomic number."""
    rms: float
    """Rms residual of the descriptor; below `SOLVED` it is the structure that the target was made of."""
    solved: bool
    """Whether it is."""
    rounds: int
    """Rounds of search; 0 if a prototype was enough."""
    evaluations: int
    """Evaluations of the full descriptor with its derivatives."""
    seconds: float
    """Wall time."""


def rebuild(
    target: Target,
    cell: np.ndarray,
    *,
    smooth: Target | None = None,
    starts: Sequence[np.ndarray] = (),
    seed: int = 0,
    rounds: int = 8,
    trials: int = 12,
    sweeps: int = 15,
    points: int = 100,
    solved: float = SOLVED,
    seconds: float = float("inf"),
) -> Rebuilt:
    """Positions of atoms in a cell, from a target.

    Parameters
    ----------
    target : Target
        Descriptors, and the elements of the atoms.
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, Å.
    smooth : Target, optional
        Target of a smoother descriptor for the search. Default: `target`.
    starts : sequence of ndarray, shape (n, 3)
        Fractional positions to try first, atoms ordered by atomic number.
    seed : int
        The same seed gives the same structure.
    rounds : int
        Most rounds of search.
    trials, sweeps, points : int
        Chains of a round, how often each atom is drawn, points it is tried at.
    solved : float
        Rms residual to stop at.
    seconds : float
        No further round is begun after so long. A search that it ends depends on the speed of the machine.

    Raises
    ------
    DescriptorError
        A cell without volume.
    """
    cell = np.asarray(cell, dtype=float)
    if cell.shape != (3, 3) or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 0.1:
        raise DescriptorError("the cell to rebuild a structure in must be three finite vectors that span a volume")
    started = time.perf_counter()
    smooth = smooth or target
    lattice = torch.from_numpy(cell)
    single, near = lattice.float(), solved / 10
    generator = torch.Generator().manual_seed(seed)
    best, rms, evaluations = torch.zeros(len(target.numbers), 3, dtype=torch.float64), float("inf"), 0

    def keep(frac: Tensor, residuals: Tensor) -> None:
        nonlocal best, rms
        if len(residuals) and float(residuals.min()) < rms:
            best, rms = frac[residuals.argmin()].double(), float(residuals.min())

    if len(starts):
        found = fit(target, torch.from_numpy(np.stack(starts)), lattice, steps=20, solved=near)
        evaluations += found.evaluations
        keep(found.frac, found.rms)
    done = 0
    searches: dict[float, GridSearch] = {}
    while rms > solved and done < rounds and time.perf_counter() - started < seconds:
        spacing = SPACINGS[done % len(SPACINGS)]
        search = searches.get(spacing) or GridSearch(smooth, cell, grid_of(cell, spacing), generator)
        searches[spacing] = search
        done += 1
        frac, _ = search.anneal(trials, sweeps, points)
        # Off the symmetric points, where derivatives vanish. Single precision does until the last digits.
        frac = frac.float() + 1e-3 * torch.randn(frac.shape, generator=generator)
        if smooth is not target:
            frac = fit(smooth, frac, single, steps=8, longest=0.3, solved=0.0).frac
        found = fit(target, frac, single, steps=12, longest=0.3, solved=near)
        few = fit(target, found.frac[torch.argsort(found.rms)[:4]], single, steps=25, longest=0.3, solved=near)
        evaluations += found.evaluations + few.evaluations
        keep(few.frac, few.rms)
        if solved < rms < 10 * solved:  # near a symmetric solution derivatives fade, and the last steps are slow
            last = fit(target, best.float().unsqueeze(0), single, steps=50, longest=0.3, solved=near)
            evaluations += last.evaluations
            keep(last.frac, last.rms)
        if rms > solved and len(target.numbers.unique()) > 1:
            best_of_round = few.frac[few.rms.argmin()]
            tried = torch.cat([_relabelled(target, few.frac, single), _exchanged(best_of_round, target.numbers, 24, generator)])
            found = fit(target, tried, single, steps=4, longest=0.3, solved=near)
            few = fit(target, found.frac[torch.argsort(found.rms)[:2]], single, steps=25, longest=0.3, solved=near)
            evaluations += found.evaluations + few.evaluations
            keep(few.frac, few.rms)
    if rms <= solved:  # to the bottom: the last digits are cheap
        last = fit(target, best.unsqueeze(0), lattice, steps=10, solved=solved / 100)
        evaluations += last.evaluations
        keep(last.frac, last.rms)
    atoms = Atoms(numbers=target.numbers.numpy(), scaled_positions=best.numpy() % 1.0, cell=cell, pbc=True)
    return Rebuilt(atoms, rms, rms <= solved, done, evaluations, time.perf_counter() - started)


def rebuild_crystal(
    atoms: Atoms, *, pooling: Pooling = "sites", ead: EAD = OURS, prototypes: str | None = None, seed: int = 0, **options: Any
) -> Rebuilt:
    """A crystal from its own descriptor, its formula and its cell; its positions are used for nothing else.

    Parameters
    ----------
    atoms : Atoms
        The crystal.
    pooling, ead
        See `Target`.
    prototypes : str, optional
        Prototype model whose candidates are tried first.
    seed, **options
        See `rebuild`.
    """
    target = Target.of(atoms, ead, pooling)
    smooth = Target.of(atoms, SMOOTH, pooling)
    starts = prototype_starts(target, smooth, atoms.cell.array, prototypes) if prototypes else []
    return rebuild(target, atoms.cell.array, smooth=smooth, starts=starts, seed=seed, **options)


def prototype_starts(target: Target, smooth: Target, cell: np.ndarray, model: str, candidates: int = 30, most: int = 8) -> list[np.ndarray]:
    """Prototypes of the formula laid into a cell, those first that fit the target.

    Parameters
    ----------
    target, smooth : Target
        What is wanted, and its smooth form, by which the ways to lay a prototype into the cell are ranked.
    cell : ndarray, shape (3, 3)
        Lattice vectors as rows, Å.
    model : str
        Packaged prototype model or file.
    candidates : int
        Prototypes tried.
    most : int
        Starts returned.

    Returns
    -------
    list of ndarray, shape (n, 3)
        Fractional positions, atoms ordered by atomic number.
    """
    from .prototypes.model import load_prototypes

    numbers = target.numbers.numpy()
    ranked, _ = load_prototypes(model).rank(numbers, units=1, order="likely")
    laid = [frac for candidate in ranked[:candidates] for frac in _laid_into(candidate.crystal()[0], cell, numbers)]
    if not laid:
        return []
    frac = torch.from_numpy(np.stack(laid))
    losses = []
    for part in frac.split(64):  # bounds the memory
        b, n = len(part), len(numbers)
        cells = torch.from_numpy(cell).expand(b, 3, 3)
        batch = CrystalBatch(target.numbers.repeat(b), part.reshape(-1, 3), cells, torch.full((b,), n))
        losses.append(smooth.loss(smooth.ead(batch).view(b, n, -1)))
    loss = torch.cat(losses)
    order, seen = torch.argsort(loss), set()
    chosen = []
    for i in order.tolist():
        key = round(float(loss[i]), 6)  # ways that symmetry makes equal have equal losses
        if key not in seen:
            seen.add(key)
            chosen.append(laid[i])
        if len(chosen) == most:
            break
    return chosen


def _laid_into(crystal: Atoms, cell: np.ndarray, numbers: np.ndarray, most: int = 12) -> list[np.ndarray]:
    """Fractional positions of a crystal in a like cell, in all the ways that the two lattices can be mapped on each other."""
    from pymatgen.core import Lattice

    ordered = crystal[np.argsort(crystal.numbers, kind="stable")]
    if not np.array_equal(ordered.numbers, numbers):
        return []
    scale = (abs(np.linalg.det(cell)) / ordered.get_volume()) ** (1 / 3)
    found = []
    for _, _, matrix in Lattice(ordered.cell.array * scale).find_all_mappings(
        Lattice(cell), ltol=0.15, atol=8.0, skip_rotation_matrix=True
    ):
        if abs(abs(np.linalg.det(matrix)) - 1) < 1e-6:
            found.append(ordered.get_scaled_positions(wrap=False) @ np.linalg.inv(matrix))
        if len(found) == most:
            break
    return found


def _relabelled(target: Target, frac: Tensor, cell: Tensor) -> Tensor:
    """Trials (b, n, 3) with their atoms given to the places of the target that their surroundings fit best, whatever the element."""
    if target.pooling != "sites":
        return frac[:0]
    b, n, _ = frac.shape
    batch = CrystalBatch(target.numbers.repeat(b), frac.reshape(-1, 3), cell.expand(b, 3, 3), torch.full((b,), n))
    found = compared_numbers(target.ead(batch).view(b, n, -1), target.scale.to(frac))
    costs = torch.cdist(found, target.values.to(frac).expand_as(found)).square().numpy()
    return torch.stack([trial[np.argsort(linear_sum_assignment(cost)[1])] for trial, cost in zip(frac, costs, strict=True)])


def _exchanged(frac: Tensor, numbers: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Copies of a trial (n, 3) with two unlike atoms exchanged, at most so many."""
    pairs = [(i, j) for i, j in combinations(range(len(numbers)), 2) if numbers[i] != numbers[j]]
    chosen = [pairs[k] for k in torch.randperm(len(pairs), generator=generator)[:most].tolist()]
    copies = frac.repeat(len(chosen), 1, 1)
    for copy, (i, j) in zip(copies, chosen, strict=True):
        copy[[i, j]] = copy[[j, i]]
    return copies
