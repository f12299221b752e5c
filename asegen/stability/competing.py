"""Competing phases where there is no reference: made from prototypes and relaxed with the potential that judges the crystal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk

from ..calculators.potentials import MP2020, POTENTIALS, Potential
from ..errors import StabilityError
from ..metrics.cache import Cache, structure_key
from .candidates import Progress, processes_for, single_points
from .entries import Entry, Phases
from .hull import Hull
from .proposals import EFFORTS, MOST_ATOMS, Proposal, proposals
from .relax import Relaxed, relax_each
from .scales import ElementalReference, common_scale, corrected, elemental_references

_LOOSE: dict[str, Any] = {"fmax": 0.03, "smax": 0.2, "steps": 80, "seconds": 240.0, "symmetrize": False, "path": False}
"""A phase relaxed so far is some meV/atom above its minimum."""
_AT_ONCE = 4  # elements of a system whose phases are made; 2^n sets of elements have to be looked at


@dataclass(frozen=True)
class _Made:
    """What is known of exactly one set of elements."""

    entries: tuple[Entry, ...] = ()
    missing: tuple[str, ...] = ()
    tried: int = 0
    relaxed: int = 0
    known: int = 0


@dataclass
class CompetingPhases:
    """Competing phases made on demand: proposed, screened by single points, relaxed, kept on disk.

    For each set of elements: crystals are proposed (:mod:`asegen.stability.proposals`), their energies as proposed make a first
    hull, what lies near it is relaxed with its symmetry kept. Every energy and relaxation is kept by potential, version and
    structure, so that a run that was killed goes on and another chemical system with the same pairs does not begin anew.
    """

    potential: Potential
    """Of all energies."""
    effort: str = "normal"
    """``"quick"``, ``"normal"`` or ``"thorough"``, see `EFFORTS`."""
    cache: Cache | None = None
    """Where results are kept. Default: the user's cache folder; for calculators of your own only memory, as their names do not
    tell two sets of weights apart."""
    processes: int | None = None
    """Default: one per core."""
    progress: Progress | None = field(default=None, repr=False)
    """Gets (phases relaxed, all) for every set of elements."""
    _known: dict[frozenset[str], _Made] = field(default_factory=dict, repr=False)
    _phases: dict[frozenset[str], Phases] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.effort not in EFFORTS:
            raise StabilityError(f"effort {self.effort!r} is not known; known are {', '.join(EFFORTS)}")
        if self.cache is None:
            self.cache = Cache(keep=self.potential.given is None)

    @property
    def scale(self) -> str:
        """Energy scale of the phases: MP2020 for potentials of PBE(+U), else the potential's own."""
        return common_scale(self.potential.scale)

    @property
    def name(self) -> str:
        """What protocols call it."""
        return f"phases made with {self.potential.name}"

    def prepare(self, systems: Iterable[frozenset[str]]) -> None:
        """Make the phases of several chemical systems together, which costs less than one after the other."""
        small = [elements for elements in systems if len(elements) <= _AT_ONCE]
        for size in range(1, _AT_ONCE + 1):
            subsets = {frozenset(chosen) for elements in small for chosen in combinations(sorted(elements), size)}
            todo = sorted((chosen for chosen in subsets if chosen not in self._known), key=sorted)
            if todo:
                self._known.update(self._elements(todo) if size == 1 else self._compounds(todo))

    def phases(self, elements: frozenset[str]) -> Phases:
        """Phases that hold no other elements than these; the first call takes minutes.

        Raises
        ------
        StabilityError
            There are too many elements, or one of them has no energy.
        """
        if len(elements) > _AT_ONCE:
            raise StabilityError(
                f"phases are made for at most {_AT_ONCE} elements, {'-'.join(sorted(elements))} has {len(elements)}: give a --reference"
            )
        if elements not in self._phases:
            self.prepare([elements])
            self._phases[elements] = self._gathered(elements)
        return self._phases[elements]

    def _gathered(self, elements: frozenset[str]) -> Phases:
        made = [self._known[chosen] for chosen in _subsets(elements, len(elements))]
        entries = tuple(entry for one in made for entry in one.entries)
        known = sum(one.known for one in made)
        relaxed = sum(one.relaxed for one in made)
        where = "energies of the Materials Project" if self.scale == MP2020 else "relaxed with the same potential"
        protocol = (
            f"made with {self.potential.name} (effort {self.effort}), scale {self.scale}: {len(entries)} phases of "
            f"{'-'.join(sorted(elements))} ({known} of them in the training data of the prototypes), {relaxed} relaxed of "
            f"{sum(one.tried for one in made)} proposed; elements: {where}; not all that exists: cells of more than {MOST_ATOMS} atoms "
            "only of AFLOW prototypes"
        )
        return Phases(entries, protocol, tuple(reason for one in made for reason in one.missing))

    def _elements(self, todo: Sequence[frozenset[str]]) -> dict[frozenset[str], _Made]:
        """Elements: the Materials Project's energy where that is on the scale, else its structures and close packings, relaxed."""
        found, wanted = {}, {}
        for chosen in todo:
            (symbol,) = chosen
            reference = elemental_references().get(symbol)
            if reference is None:
                found[chosen] = _Made(missing=(f"{symbol}: no elemental structure is known",))
            elif self.scale == MP2020:
                entry = Entry(symbol, reference.energy_per_atom, self.scale, "Materials Project", reference.material_id, reference.atoms)
                found[chosen] = _Made((entry,))
            else:
                wanted[chosen] = _of_element(reference)
        return found | self._relaxed(wanted, {chosen: len(wanted[chosen]) for chosen in wanted})

    def _compounds(self, todo: Sequence[frozenset[str]]) -> dict[frozenset[str], _Made]:
        """Compounds of exactly these elements; those of fewer are known already."""
        proposed = {chosen: proposals(chosen, EFFORTS[self.effort]) for chosen in todo}
        flat = [one for chosen in todo for one in proposed[chosen]]
        energies = dict(zip(map(id, flat), self._single_points([one.atoms for one in flat]), strict=True))
        wanted, left_out = {}, {}
        for chosen in todo:
            answered = [(one, float(energies[id(one)])) for one in proposed[chosen] if not isinstance(energies[id(one)], str)]
            wanted[chosen], left_out[chosen] = self._near_the_hull(chosen, answered)
            formulas = {one.formula for one, _ in answered}
            never = dict.fromkeys(one.formula for one in proposed[chosen] if one.known and one.formula not in formulas)
            left_out[chosen] += [f"{formula}: known, but the potential has no energy of it" for formula in never]
        made = self._relaxed(wanted, {chosen: len(proposed[chosen]) for chosen in todo})
        return {chosen: replace(made[chosen], missing=(*made[chosen].missing, *left_out[chosen])) for chosen in todo}

    def _near_the_hull(self, chosen: frozenset[str], answered: Sequence[tuple[Proposal, float]]) -> tuple[list[Proposal], list[str]]:
        """What is to be relaxed, nearest to the hull first, and what has to be said of the others."""
        effort = EFFORTS[self.effort]
        entries = [self._entry(one, one.atoms, energy) for one, energy in answered]
        inner = [entry for sub in _subsets(chosen, len(chosen) - 1) for entry in self._known[sub].entries]
        try:
            hull = Hull(Phases((*inner, *entries), ""), chosen, self.scale)
        except StabilityError:  # an element has no energy; whoever asks for the system is told
            return [], []
        above = np.array([entry.energy_per_atom - hull.below(entry.fractions)[0] for entry in entries])
        wanted: list[Proposal] = []
        taken: dict[str, int] = {}
        others: list[Proposal] = []
        for k in np.argsort(above, kind="stable"):
            one = answered[int(k)][0]
            taken[one.formula] = taken.get(one.formula, 0) + 1
            if above[k] <= effort.window and taken[one.formula] <= effort.each:
                (wanted if len(wanted) < effort.most else others).append(one)
        if not others:
            return wanted, []
        never = dict.fromkeys(one.formula for one in others if one.formula not in {taken_up.formula for taken_up in wanted})
        text = f"{'-'.join(sorted(chosen))}: {len(others)} crystals within {effort.window:g} eV/atom of the unrelaxed hull are not relaxed"
        named = f", the only ones of {', '.join(never)}" if never else ""
        return wanted, [f"{text}{named} (effort {self.effort})"]

    def _entry(self, one: Proposal, atoms: Atoms, energy: float) -> Entry:
        if self.scale == MP2020:
            energy = corrected(atoms, energy, self.potential.scale).energy
        name = self.potential.name
        return Entry(one.formula, energy / len(atoms), self.scale, f"made with {name}", one.origin, atoms, name)

    def _relaxed(
        self, wanted: Mapping[frozenset[str], Sequence[Proposal]], tried: Mapping[frozenset[str], int]
    ) -> dict[frozenset[str], _Made]:
        flat = [one.atoms for chosen in wanted for one in wanted[chosen]]
        answers = iter(self._relaxations(flat))
        return {chosen: self._gained(wanted[chosen], [next(answers) for _ in wanted[chosen]], tried[chosen]) for chosen in wanted}

    def _gained(self, wanted: Sequence[Proposal], answers: Sequence[dict[str, Any]], tried: int) -> _Made:
        entries, missing, known = [], [], 0
        for one, answer in zip(wanted, answers, strict=True):
            if answer["energy"] is None:
                missing.append(f"{one.formula} ({one.origin}): {answer['reason']}")
                continue
            atoms = Atoms(numbers=answer["numbers"], positions=answer["positions"], cell=answer["cell"], pbc=True)
            entries.append(self._entry(one, atoms, answer["energy"]))
            known += one.known
            if answer["reason"]:
                missing.append(f"{one.formula} ({one.origin}): {answer['reason']}; its energy is an upper bound")
        return _Made(tuple(entries), tuple(missing), tried, len(wanted), known)

    # ------------------------------------------------------------------------------------------------------- what is kept on disk

    def _single_points(self, structures: Sequence[Atoms]) -> list[float | str]:
        assert self.cache is not None
        kind, keys = f"energy/{_version_of(self.potential)}", [structure_key(atoms) for atoms in structures]
        found: dict[bytes, Any] = {key: json.loads(value) for key, value in self.cache.get(kind, keys).items()}
        todo = [k for k, key in enumerate(keys) if key not in found]
        fresh: dict[bytes, bytes] = {}
        for place, value in single_points([structures[k] for k in todo], self.potential, self.processes):
            key = keys[todo[place]]
            found[key] = value
            if not isinstance(value, str):  # a failure may have been the machine's, and is soon found again
                fresh[key] = json.dumps(value).encode()
            if len(fresh) == 20:
                self.cache.put(kind, fresh)
                fresh = {}
        self.cache.put(kind, fresh)
        return [found[key] for key in keys]

    def _relaxations(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        assert self.cache is not None
        recipe = hashlib.sha256(json.dumps(_LOOSE, sort_keys=True).encode()).hexdigest()[:8]
        kind, keys = f"relaxed/{_version_of(self.potential)}/{recipe}", [structure_key(atoms) for atoms in structures]
        found: dict[bytes, Any] = {key: json.loads(value) for key, value in self.cache.get(kind, keys).items()}
        todo = [k for k, key in enumerate(keys) if key not in found]
        processes = processes_for(self.potential, self.processes)
        for done, (place, result) in enumerate(
            relax_each([structures[k] for k in todo], self.potential, processes=processes, **_LOOSE), start=1
        ):
            found[keys[todo[place]]] = answer = _plain(result)
            if _lasting(result):
                self.cache.put(kind, {keys[todo[place]]: json.dumps(answer).encode()})
            if self.progress is not None:
                self.progress(done, len(todo))
        return [found[key] for key in keys]


def _plain(result: Relaxed) -> dict[str, Any]:
    if result.energy is None:
        return {"energy": None, "reason": result.reason or "no energy"}
    atoms = result.atoms
    return {
        "energy": float(result.energy),
        "reason": "" if result.converged else result.reason or "not converged",
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.array.tolist(),
    }


def _lasting(result: Relaxed) -> bool:
    """Whether a relaxation would end in the same way again: not one that ran out of time or whose process died."""
    return result.converged or result.calls >= _LOOSE["steps"] or (result.energy is None and result.calls > 0)


def _of_element(reference: ElementalReference) -> list[Proposal]:
    """The Materials Project's ground state, and close packings of the same density."""
    symbol, volume = reference.symbol, reference.atoms.get_volume() / len(reference.atoms)
    made = [Proposal(symbol, reference.atoms, reference.material_id, True)]
    for kind, per_cell in (("fcc", 4), ("bcc", 2)):
        made.append(Proposal(symbol, bulk(symbol, kind, a=(per_cell * volume) ** (1 / 3)), kind, False))
    return made


def _subsets(elements: frozenset[str], largest: int) -> list[frozenset[str]]:
    return [frozenset(chosen) for size in range(1, largest + 1) for chosen in combinations(sorted(elements), size)]


def _version_of(model: Potential) -> str:
    """Name and version of a potential, for keys."""
    known = POTENTIALS.get(model.name)
    if known is None:
        return model.name
    try:
        return f"{model.name}-{version(known.package)}"
    except PackageNotFoundError:
        return model.name


__all__ = ["CompetingPhases"]
