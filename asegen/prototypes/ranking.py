"""From a composition to candidate crystals: known ones by their energies, others by the learned ranking, each crystal once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from torch import Tensor

from ..errors import FormulaError
from ..formulas import numbers_of
from ..prior import atomic_volumes
from ..symmetry.crystal import crystal_from_sites
from ..symmetry.groups import Group, space_group
from ..symmetry.lattices import conventional_cell
from ..symmetry.symmetry import Symmetry
from .ranker import Ranker
from .selection import LIKENESS, distances, select
from .table import TYPICAL_HULL, Family, Prototype, PrototypeTable, composition

ORDERS = ("stable", "likely")

#: Energies enter the probabilities of known crystals as exp(-E / this), eV/atom.
SOFTNESS = 0.03
#: Probability that the stable crystal is among the known ones, if one of them lies on the hull; it falls with the energy of the lowest,
#: slowly if one of them was observed.
KNOWN_SHARE = 0.95
_KNOWN_FADES, _OBSERVED_FADES = 0.05, 0.5
#: Errors of PBE's energy differences between polymorphs are of this size, eV/atom: the first place goes to a crystal that was observed
#: if it lies no further above the lowest one. Materials Project ids below 32,000 and from 500,000 to 700,000 were given to crystals of
#: the ICSD (checked on MPTS-52, which holds observed crystals only), the first of them to the better known ones.
OBSERVED = ((range(1, 32_000), 0.045), (range(500_000, 700_000), 0.025))
# two known crystals of one prototype are one if all their parameters, strains and log volumes differ less than this
_SAME_VALUES = 0.02
# a predicted crystal is a known one if their surroundings differ less than this
_SAME = 0.004


@dataclass(frozen=True)
class Candidate:
    """A prototype with elements on its sites, for one composition."""

    prototype: Prototype
    elements: tuple[int, ...]
    """Atomic numbers in the slots."""
    probability: float
    """That this is the crystal asked for, and none of those before it."""
    known: bool
    """Whether the training data hold this crystal; it then has its own cell and parameters."""
    values: np.ndarray = field(repr=False)
    """Free parameters, shape of the cell, log of the volume ratio: a known crystal's own, else predicted."""
    hull: float = float("nan")
    """Energy above the convex hull, eV/atom; NaN where nobody knows."""
    hull_source: str = ""
    """``published``, ``computed`` (by an interatomic potential) or ``predicted`` (from like crystals)."""
    material: int = 0
    """Number of a known crystal's Materials Project id, 0: none."""
    handbook: bool = False
    """Whether handbooks give its space group for this compound at ambient conditions, and it stands first for that."""
    typed: tuple[int, ...] = ()
    """Atomic numbers in the order in which the atoms are to stand."""

    @property
    def sites(self) -> list[tuple[str, str]]:
        """Element and label of every site: ``[("Sr", "1a"), ("Ti", "1b"), ("O", "3c")]``."""
        group = space_group(self.prototype.number)
        geometry = self.prototype.geometry
        return [
            (chemical_symbols[self.elements[geometry.slots[k]]], group.position(geometry.letters[k]).label) for k in self._standing()
        ]

    @property
    def units(self) -> int:
        """Formula units in the primitive cell."""
        return self.prototype.units

    @property
    def material_id(self) -> str:
        """Materials Project id of a known crystal, empty if there is none."""
        return "" if self.material == 0 else f"{'mp' if self.material > 0 else 'mvc'}-{abs(self.material)}"

    @property
    def volume(self) -> float:
        """Volume of the primitive cell, Å³."""
        volumes = np.nan_to_num(atomic_volumes(), nan=18.0)
        reference = sum(n * volumes[z] for n, z in zip(self.prototype.counts, self.elements, strict=True))
        return float(np.exp(self.values[-1]) * reference)

    def _standing(self) -> list[int]:
        """The prototype's sites in the order of their elements as typed."""
        slots = self.prototype.geometry.slots
        if not self.typed:
            return list(range(len(slots)))
        return sorted(range(len(slots)), key=lambda k: self.typed.index(self.elements[slots[k]]))

    def crystal(self) -> tuple[Atoms, Symmetry]:
        """The crystal in its primitive cell, and its symmetry."""
        group = space_group(self.prototype.number)
        geometry = self.prototype.geometry
        dofs = [group.position(letter).dof for letter in geometry.letters]
        ends = np.cumsum([0, *dofs])
        sites = [
            (chemical_symbols[self.elements[geometry.slots[k]]], geometry.letters[k], self.values[ends[k] : ends[k + 1]])
            for k in self._standing()
        ]
        volume = self.volume / abs(np.linalg.det(group.primitive))
        return crystal_from_sites(group, sites, conventional_cell(group.lattice_system, volume, self.values[ends[-1] : -1]))


@dataclass(frozen=True)
class _Entry:
    """A known crystal of the composition."""

    candidate: int
    prototype: int
    order: int
    example: int
    energy: float
    """eV/atom above the hull, estimated where it is not known."""
    lead: float
    """What counts for the first place, eV/atom."""
    place: int
    """Of its space group among the expected ones, their number if it is none of them."""


def composition_key(numbers: np.ndarray) -> str:
    """Reduced formula with sorted elements, ``O2Ti``."""
    elements, counts = np.unique(numbers, return_counts=True)
    counts //= np.gcd.reduce(counts)
    return "".join(sorted(f"{chemical_symbols[z]}{n if n > 1 else ''}" for z, n in zip(elements, counts, strict=True)))


def rank(
    table: PrototypeTable,
    ranker: Ranker,
    formula: str | np.ndarray,
    n: int | None = None,
    units: int | Sequence[int] | None = None,
    order: str = "stable",
    spacegroup: int | str | Group | None = None,
    new: bool = False,
    diversity: float = 0.5,
    handbook: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> tuple[list[Candidate], float]:
    """See :meth:`asegen.prototypes.model.PrototypeModel.rank`; `handbook` gives space groups by :func:`composition_key`."""
    if order not in ORDERS:
        raise FormulaError(f"order = {order!r} is not one of {', '.join(ORDERS)}")
    numbers = numbers_of(formula) if isinstance(formula, str) else np.asarray(formula)
    elements, counts = composition(numbers)
    family = table.family(counts)
    if family is None:
        return [], 1.0
    allowed = torch.ones(len(family.members), dtype=torch.bool)
    if units is not None:
        written = int(np.gcd.reduce(counts))
        wanted = [written * int(u) for u in ([units] if isinstance(units, (int, np.integer)) else units)]
        allowed &= torch.isin(family.units, torch.tensor(wanted))
    if spacegroup is not None:
        number = space_group(spacegroup).number
        allowed &= torch.tensor([table.prototypes[k].number == number for k in family.members.tolist()])
    if not allowed.any():
        return [], 1.0
    # a model that knows no energies has learned one question only
    stable = order == "stable" and table.has_energies
    query = torch.from_numpy(elements.astype(np.int64))[None]
    with torch.inference_mode():
        # what is known already is a reason against its prototype only where new crystals are asked for
        found, log_p, log_new = ranker(family, query, repeats=new, allowed=allowed, stable=stable)
    share_new = float(log_new.exp())
    real = found.real[0]
    index = found.index[0][real]
    probability = log_p[0][real].exp().double().numpy()
    probability = probability / max(probability.sum(), 1e-300) * (1 - share_new)
    predicted = dict(zip(index.tolist(), found.features[0][real][:, 6].mul(TYPICAL_HULL).tolist(), strict=True))
    expected = tuple(dict.fromkeys(handbook.get(composition_key(numbers), ()))) if stable and not new else ()
    entries = _known(table, family, query[0], allowed, predicted, expected)
    typed = tuple(int(z) for z in dict.fromkeys(numbers.tolist()))
    make = _Maker(table, family, elements, typed)
    if new:
        # a database may hold another entry of a prototype that it has for this composition: how likely, was learned
        fresh = ~np.isin(index.numpy(), [entry.candidate for entry in entries if stable])
        if not fresh.any():
            return [], 1.0
        probability = probability[fresh] * (1 - share_new) / max(probability[fresh].sum(), 1e-300)
        chosen = select(_likeness(family, index[fresh]), probability, diversity, n=n)
        places = np.flatnonzero(fresh)
        return [make.predicted(int(index[places[k]]), gain, predicted) for k, gain in chosen], share_new
    made: list[Candidate] = []
    share_known = 0.0
    covered = np.zeros(len(index))
    if entries:
        entries = _distinct(family, table, entries) if stable else entries
        made, share_known = _known_candidates(make, entries, index, probability, stable)
        # what is nearly a known crystal is no other one
        fresh, covered = _unlike(family, index, [entry.candidate for entry in entries])
        index, probability, covered = index[fresh], probability[fresh], covered[fresh]
        left = (1 - share_known) / max(1e-9, probability.sum() + share_new)
        probability, share_new = probability * left, share_new * left
    # what an expected crystal gains is taken from all others, whatever n
    chosen = select(_likeness(family, index), probability, diversity, covered, None if expected else n)
    made += [make.predicted(int(index[k]), gain, predicted) for k, gain in chosen]
    made.sort(key=lambda candidate: -candidate.probability)
    if expected:
        made = _expected_first(make, ranker, query, allowed, expected, made)
    return made[:n], share_new


def _known(
    table: PrototypeTable, family: Family, elements: Tensor, allowed: Tensor, predicted: dict[int, float], expected: tuple[int, ...]
) -> list[_Entry]:
    """The known crystals of a composition among the prototypes allowed: the one that is most likely stable, then the others by energy."""
    # a crystal's elements are all different, so at most one order makes them those of an example
    same = (elements[family.orders][:, None] == family.examples).all(-1) & allowed[family.owner]
    pairs = same.nonzero().tolist()
    stored = []
    for _, example in pairs:
        prototype = int(family.owner[example])
        stored.append((table.prototypes[int(family.members[prototype])], example - int(family.first[prototype])))
    # a potential that finds a crystal below all published ones rather errs: it comes no further up than the lowest of those
    published = [float(entry.hull[row]) for entry, row in stored if len(entry.published) and entry.published[row]]
    floor = min(published, default=-np.inf)
    found = []
    for (order, example), (entry, row) in zip(pairs, stored, strict=True):
        prototype = int(family.owner[example])
        candidate = prototype * len(family.orders) + int(family.same[prototype, order])
        energy = float(family.hull[example])
        computed = not (len(entry.published) and entry.published[row])
        if np.isnan(energy):
            energy = max(predicted.get(candidate, TYPICAL_HULL), 0.0)
        elif computed:
            energy = max(energy, floor)
        material = int(entry.material[row]) if len(entry.material) else 0
        lead = energy - next((bonus for ids, bonus in OBSERVED if material in ids), 0.0)
        place = expected.index(entry.number) if entry.number in expected else len(expected)
        found.append((computed, _Entry(candidate, prototype, order, example, energy, lead, place)))
    found.sort(key=lambda pair: (pair[1].energy, pair[0], pair[1].example))
    entries = [entry for _, entry in found]
    if entries:
        first = min(entries, key=lambda entry: (entry.place, entry.lead))
        entries = [first, *(entry for entry in entries if entry is not first)]
    return entries


def _expected_first(
    make: _Maker, ranker: Ranker, query: Tensor, allowed: Tensor, expected: tuple[int, ...], made: list[Candidate]
) -> list[Candidate]:
    """The candidates with the best one of the expected groups before all others: one that is known, else a predicted one.

    The groups are expected in their order.
    """
    there = [c for c in made if c.prototype.number in expected]
    best = min(there, key=lambda c: (not c.known, expected.index(c.prototype.number)), default=None)
    if best is None:
        here = allowed & torch.tensor([make.table.prototypes[k].number in expected for k in make.family.members.tolist()])
        if not here.any():
            return made
        with torch.inference_mode():
            found, log_p, _ = ranker(make.family, query, repeats=False, allowed=here, stable=True)
        k = int(log_p[0].argmax())
        candidate = int(found.index[0, k])
        best = make.predicted(candidate, 0.0, {candidate: float(found.features[0, k, 6]) * TYPICAL_HULL})
    others = [c for c in made if c is not best]
    total = best.probability + sum(c.probability for c in others)
    chance = max(best.probability, 0.5 * total)
    left = (total - chance) / max(sum(c.probability for c in others), 1e-300)
    # what is taken from the others keeps their order; none may come out above the first
    first = replace(best, probability=chance, handbook=True)
    return [first, *(replace(c, probability=min(chance, c.probability * left)) for c in others)]


def _distinct(family: Family, table: PrototypeTable, entries: list[_Entry]) -> list[_Entry]:
    """Known crystals, each once: of nearly equal ones of a prototype the first."""
    kept: list[tuple[_Entry, np.ndarray]] = []
    for entry in entries:
        prototype = table.prototypes[int(family.members[entry.prototype])]
        own = prototype.own[entry.example - int(family.first[entry.prototype])] if len(prototype.own) else np.zeros(1)
        if not any(entry.candidate == other.candidate and np.abs(own - values).max() < _SAME_VALUES for other, values in kept):
            kept.append((entry, own))
    return [entry for entry, _ in kept]


def _likeness(family: Family, index: Tensor) -> np.ndarray:
    return torch.exp(-distances(family, index) / LIKENESS).double().numpy()


def _unlike(family: Family, index: Tensor, known: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Which candidates are none of the known crystals, and how much like the nearest of those each is."""
    if not known or not len(index):
        return np.ones(len(index), dtype=bool), np.zeros(len(index))
    least = distances(family, index, torch.tensor(sorted(set(known)))).amin(1)
    fresh = (least >= _SAME) & ~torch.isin(index, torch.tensor(known))
    return fresh.numpy(), torch.exp(-least / LIKENESS).double().numpy()


def _known_candidates(
    make: _Maker, entries: list[_Entry], index: Tensor, probability: np.ndarray, stable: bool
) -> tuple[list[Candidate], float]:
    """Known crystals with their probabilities, and the sum of those."""
    if stable:
        energy = np.array([entry.energy for entry in entries])
        fades = _OBSERVED_FADES if any(entry.lead < entry.energy for entry in entries) else _KNOWN_FADES
        share = KNOWN_SHARE * float(np.exp(-max(0.0, energy.min()) / fades))
        # the first may lie above others, by what PBE's errors allow
        energy[0] = min(energy[0], energy.min() - 0.5 * SOFTNESS) if len(energy) > 1 and energy[0] > energy[1:].min() else energy[0]
        weight = np.exp(-(energy - energy[0]) / SOFTNESS)
    else:
        # one place for each prototype, in the order of the learned ranking
        first = {entry.candidate: entry for entry in reversed(entries)}
        own = dict(zip(index.tolist(), probability.tolist(), strict=True))
        entries = sorted(first.values(), key=lambda entry: -own.get(entry.candidate, 0.0))
        share = KNOWN_SHARE
        weight = np.array([max(own.get(entry.candidate, 0.0), 1e-9) for entry in entries])
    chance = share * weight / weight.sum()
    return [make.known(entry, float(p)) for entry, p in zip(entries, chance, strict=True)], share


@dataclass(frozen=True)
class _Maker:
    """Candidates of one composition."""

    table: PrototypeTable
    family: Family
    elements: np.ndarray
    typed: tuple[int, ...]

    def predicted(self, candidate: int, probability: float, energies: dict[int, float]) -> Candidate:
        prototype, order = divmod(candidate, len(self.family.orders))
        entry = self.table.prototypes[int(self.family.members[prototype])]
        assigned = self.elements[self.family.orders[order].numpy()]
        elements = tuple(int(z) for z in assigned)
        made = Candidate(entry, elements, probability, False, entry.geometry.predict(assigned), typed=self.typed)
        # without energies of the examples there is nothing to predict from
        return replace(made, hull=energies[candidate], hull_source="predicted") if np.isfinite(entry.hull).any() else made

    def known(self, known: _Entry, probability: float) -> Candidate:
        entry = self.table.prototypes[int(self.family.members[known.prototype])]
        assigned = self.elements[self.family.orders[known.order].numpy()]
        elements = tuple(int(z) for z in assigned)
        if not len(entry.own):
            return Candidate(entry, elements, probability, True, entry.geometry.predict(assigned), typed=self.typed)
        row = known.example - int(self.family.first[known.prototype])
        hull = float(entry.hull[row])
        source = "" if np.isnan(hull) else "published" if entry.published[row] else "computed"
        material = int(entry.material[row])
        return Candidate(entry, elements, probability, True, entry.own[row], hull, source, material, typed=self.typed)


__all__ = ["ORDERS", "Candidate", "composition_key", "rank"]
