"""Relaxed crystals as a list of polymorphs: each once, lowest in energy first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ase import Atoms

from ..errors import StabilityError
from ..metrics.cache import Cache
from ..metrics.crystalset import reduced_formula
from ..report import space_group
from .distinct import leaders
from .relax import Relaxed

_STRICT = 0.01  # symprec, Å: relaxed crystals lie exactly on their groups


@dataclass(frozen=True)
class Polymorph:
    """A structure that one or several crystals relaxed to."""

    relaxed: Relaxed = field(repr=False)
    """The lowest in energy of them."""
    members: tuple[int, ...]
    """Positions of all of them in what was given."""
    above_lowest: float
    """Energy above the lowest polymorph of the same formula, eV/atom."""
    spacegroup: int
    """International number by spglib at symprec 0.01 Å."""

    @property
    def atoms(self) -> Atoms:
        """The crystal, with energy, forces and stress."""
        return self.relaxed.atoms

    @property
    def found(self) -> int:
        """How many crystals relaxed to it."""
        return len(self.members)


def polymorphs(relaxed: Sequence[Relaxed], *, cache: Cache | None = None, processes: int | None = 1) -> list[Polymorph]:
    """The distinct structures among relaxed crystals, by formula and energy.

    Two are the same if they have the same reduced formula and the same space group at symprec 0.01 Å, their energies differ by less than
    1 meV/atom, and pymatgen's ``StructureMatcher`` (0.2, 0.3, 5°) matches them. So a small distortion that lowers the energy counts as
    a polymorph of its own, as SrTiO3's ferroelectric ones do.

    Parameters
    ----------
    relaxed : sequence of Relaxed
        Crystals without an energy are left out; those that did not converge are kept, and are never the same as one that did.
    cache, processes
        See :class:`asegen.metrics.pairs.Comparer`.

    Returns
    -------
    list of Polymorph
        Formulas in the order in which they first occur; inside a formula the lowest in energy first.

    Raises
    ------
    StabilityError
        Energies of different potentials.
    """
    place = [i for i, one in enumerate(relaxed) if one.energy_per_atom is not None]
    scales = {(relaxed[i].potential, relaxed[i].scale) for i in place}
    if len(scales) > 1:
        names = ", ".join(sorted(name for name, _ in scales))
        raise StabilityError(f"energies of different potentials cannot be ranked together ({names}); relax all crystals with one")
    place.sort(key=lambda i: relaxed[i].energy_per_atom or 0.0)
    formulas = [reduced_formula(relaxed[i].start.numbers) for i in place]
    groups = [space_group(relaxed[i].atoms, _STRICT) for i in place]
    energies = [relaxed[i].energy_per_atom or 0.0 for i in place]
    kinds = [(formula, group, relaxed[i].converged) for formula, group, i in zip(formulas, groups, place, strict=True)]
    first = leaders([relaxed[i].atoms for i in place], energies, kinds, cache=cache, processes=processes)
    order = list(dict.fromkeys(reduced_formula(one.start.numbers) for one in relaxed))
    lowest: dict[object, float] = {}
    for k, formula in enumerate(formulas):
        lowest.setdefault(formula, energies[k])
    found = [
        Polymorph(
            relaxed=relaxed[place[k]],
            members=tuple(sorted(place[b] for b, a in enumerate(first) if a == k)),
            above_lowest=energies[k] - lowest[formulas[k]],
            spacegroup=groups[k],
        )
        for k in range(len(place))
        if first[k] == k
    ]
    rank = {formula: number for number, formula in enumerate(order)}
    return sorted(found, key=lambda one: rank[reduced_formula(one.relaxed.start.numbers)])
