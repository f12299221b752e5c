"""From an unstable crystal to a stable one: along its imaginary modes, downhill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import spglib
from ase import Atoms

from ..calculators.potentials import evaluate
from ..errors import StabilityError
from .modes import Mode, combinations, displaced, patterns
from .phonon_cells import StandardCell, spelled, standard_cell
from .phonons import Phonons, crystal_of, phonons
from .relax import Relaxed, relax

AMPLITUDES = (0.05, 0.1, 0.2, 0.35)
"""Displacements of the atom that moves most, Å, that are tried."""
_LOWER = 1e-5  # eV/atom, a gain that counts
_EQUAL = 2e-5  # eV/atom, start points closer than this in energy and equal in symmetry are one
_SYMPREC = 0.01
_GAMMA = {"g": "Γ", "gamma": "Γ"}


@dataclass(frozen=True)
class Descent:
    """A crystal found by following a mode."""

    atoms: Atoms = field(repr=False)
    """Relaxed, standard primitive cell."""
    mode: Mode
    """The mode followed."""
    combination: tuple[int, ...]
    """Weights of its partners."""
    amplitude: float
    """Displacement of the atom that moves most from which the relaxation began, Å."""
    energy_per_atom: float
    """eV."""
    gain: float
    """Energy per atom of the unstable crystal minus this one's, eV."""
    spacegroup: int
    """International number."""
    symbol: str
    """Its Hermann-Mauguin symbol."""

    def __str__(self) -> str:
        by = f"by the {self.mode.frequency:.2f} THz mode at {self.mode.where}"
        return f"{self.symbol} ({self.spacegroup}), {1000 * self.gain:.2f} meV/atom lower, {by}"


@dataclass(frozen=True)
class Fixed:
    """An unstable crystal followed downhill."""

    steps: tuple[Descent, ...]
    """What was followed, in order; empty where the crystal was stable, or nothing lower was found."""
    tried: tuple[tuple[Descent, ...], ...] = field(repr=False)
    """All crystals found in each round, lowest first."""
    phonons: Phonons
    """Of the last crystal."""
    gain: float
    """Energy per atom of the first crystal minus that of the last, eV."""
    reason: str | None
    """Why the last crystal is still unstable; None if it is stable."""

    @property
    def atoms(self) -> Atoms:
        """The last crystal, primitive cell."""
        last = self.steps[-1].atoms if self.steps else self.phonons.cell.primitive
        return last.copy()

    @property
    def ok(self) -> bool:
        """Whether the last crystal is stable."""
        return self.phonons.stable


def follow(
    unstable: Phonons,
    *,
    modes: Sequence[Mode] | None = None,
    at: str | None = None,
    most: int = 2,
    amplitudes: Sequence[float] = AMPLITUDES,
    relaxation: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Descent]:
    """Crystals of lower energy along imaginary modes.

    For each mode the crystal is displaced in the smallest supercell that the mode is periodic in, along each partner and equal sums of
    partners, at several amplitudes; the lowest of each is relaxed in the space group it then has, cell included.

    Parameters
    ----------
    unstable : Phonons
    modes : sequence of Mode, optional
        Default: the `most` lowest of ``unstable.imaginary``. Their order is no measure of the energy to gain.
    at : str, optional
        Only modes at the special point of this label, such as ``"R"``.
    most : int
    amplitudes : sequence of float, Å
        Of the atom that moves most.
    relaxation : dict, optional
        Further arguments of :func:`asegen.stability.relax.relax`.
    progress : callable, optional
        Called with how many relaxations are done and how many there are.

    Returns
    -------
    list of Descent
        Lowest energy first; equal ones once. Empty where no displacement lowers the energy. Crystals whose relaxation fails are left
        out, unless all fail.

    Raises
    ------
    StabilityError
        No imaginary mode, no amplitude, a mode that needs too large a supercell, or no relaxation that works.
    PotentialError
        The potential fails.
    """
    chosen = list(unstable.imaginary if modes is None else modes)
    if not chosen:
        raise StabilityError("there is no imaginary mode to follow: the crystal is stable")
    if at is not None:
        name = special_point(at, unstable.cell)
        places = sorted({mode.label or spelled(mode.q) for mode in chosen})
        chosen = [mode for mode in chosen if mode.label == name]
        if not chosen:
            raise StabilityError(f"there is no imaginary mode at {name}, only at {', '.join(places)}")
    chosen = chosen[:most] if modes is None else chosen
    if not amplitudes or min(amplitudes) <= 0:
        raise StabilityError("amplitudes must be above 0 Å")
    starts = [start for mode in chosen for start in _starts(unstable, mode, amplitudes)]
    found: list[Descent] = []
    failures: list[str] = []
    for done, (mode, combination, amplitude, atoms) in enumerate(starts, start=1):
        relaxed = relax(atoms, unstable.model, **{"symmetry": "keep", "cell": "free", **(relaxation or {})})
        if not relaxed.ok or relaxed.energy_per_atom is None:
            failures.append(str(relaxed.reason))
        else:
            gain = unstable.energy_per_atom - relaxed.energy_per_atom
            cell = standard_cell(relaxed.atoms, _SYMPREC)
            if gain > _LOWER:
                found.append(
                    Descent(cell.primitive, mode, combination, amplitude, relaxed.energy_per_atom, gain, cell.spacegroup, cell.symbol)
                )
        if progress:
            progress(done, len(starts))
    if starts and len(failures) == len(starts):
        raise StabilityError(f"no crystal displaced along the modes could be relaxed: {failures[0]}")
    found.sort(key=lambda descent: descent.energy_per_atom)
    return [d for i, d in enumerate(found) if not any(_same(d, earlier) for earlier in found[:i])]


def fix(
    crystal: Atoms | Relaxed | Phonons,
    potential: Any = "7net-0",
    *,
    at: str | None = None,
    rounds: int = 4,
    most: int = 2,
    progress: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> Fixed:
    """Follow imaginary modes until the crystal is stable.

    In each round the crystal of lowest energy that :func:`follow` finds is taken, and its phonons are computed.

    Parameters
    ----------
    crystal : ase.Atoms, Relaxed or Phonons
        Relaxed, or its relaxation; or its phonons, whose potential is then used.
    potential : str, ASE calculator or Potential
    at : str, optional
        In the first round only modes at the special point of this label, such as ``"R"``.
    rounds : int
        Most rounds.
    most : int
        Modes followed in a round.
    progress : callable, optional
        Called with what is going on, how much of it is done and how much there is.
    **settings
        Of :func:`asegen.stability.phonons.phonons`.

    Returns
    -------
    Fixed

    Raises
    ------
    StabilityError, PotentialError
        As :func:`asegen.stability.phonons.phonons` and :func:`follow`.
    """

    def told(word: str) -> Callable[[int, int], None] | None:
        return None if progress is None else partial(progress, word)

    if at is not None:  # before anything is computed
        special_point(
            at, crystal.cell if isinstance(crystal, Phonons) else standard_cell(crystal_of(crystal), settings.get("symprec", _SYMPREC))
        )
    now = crystal if isinstance(crystal, Phonons) else phonons(crystal, potential, progress=told("phonons"), **settings)
    first, reason = now.energy_per_atom, None
    steps: list[Descent] = []
    tried: list[tuple[Descent, ...]] = []
    while not now.stable:
        if len(steps) == rounds:
            reason = f"still unstable after {rounds} rounds"
            break
        found = follow(now, at=at if not steps else None, most=most, progress=told("relaxations"))
        tried.append(tuple(found))
        if not found:
            reason = "no displacement along its imaginary modes lowers the energy; the modes may be an error of the finite differences"
            break
        steps.append(found[0])
        now = phonons(found[0].atoms, now.model, progress=told("phonons"), **settings)
    return Fixed(tuple(steps), tuple(tried), now, first - now.energy_per_atom, reason)


def special_point(name: str, cell: StandardCell) -> str:
    """Label of a special point of a crystal, as asked for: ``"R"``, ``"g"`` or ``"gamma"`` for Γ.

    Raises
    ------
    StabilityError
        Its path has no such point; the sentence names those it has.
    """
    label = _GAMMA.get(name.lower(), name)
    if label not in cell.points:
        raise StabilityError(f"the path of {cell.symbol} has no point {name}; it has {', '.join(sorted(cell.points))}")
    return label


def _starts(unstable: Phonons, mode: Mode, amplitudes: Sequence[float]) -> list[tuple[Mode, tuple[int, ...], float, Atoms]]:
    """The lowest displacement along each combination of partners; equal ones once, none where none is lower."""
    supercell, moves = patterns(mode, unstable.cell_of_modes)
    calculator = unstable.model.calculator()
    found: list[tuple[float, int, tuple[int, ...], float, Atoms]] = []
    for combination in combinations(len(moves)):
        best: tuple[float, float, Atoms] | None = None
        for amplitude in amplitudes:
            atoms = displaced(supercell, moves, combination, amplitude)
            atoms.calc = calculator
            energy = evaluate(atoms).energy / len(atoms)
            atoms.calc = None
            if best is not None and energy > best[0]:
                break  # past the bottom
            best = (energy, amplitude, atoms)
        if best is None or best[0] > unstable.energy_per_atom - _LOWER / 10:
            continue
        group = _group(best[2])
        if all(abs(best[0] - energy) > _EQUAL or group != other for energy, other, *_ in found):
            found.append((best[0], group, combination, best[1], best[2]))
    return [(mode, combination, amplitude, atoms) for _, _, combination, amplitude, atoms in found]


def _group(atoms: Atoms) -> int:
    found = spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=_SYMPREC)
    return int(found.number) if found is not None else 1


def _same(one: Descent, other: Descent) -> bool:
    close = bool(np.isclose(one.energy_per_atom, other.energy_per_atom, rtol=0, atol=_EQUAL))
    return close and one.spacegroup == other.spacegroup
