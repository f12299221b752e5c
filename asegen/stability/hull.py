"""Energy above the convex hull: does a crystal fall apart into others that are lower in energy?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Union, cast

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ..calculators.potentials import MP2020, Potential
from ..calculators.potentials import potential as potential_of
from ..errors import StabilityError
from ..metrics.cache import Cache
from .candidates import Candidate, Energies, Given, Progress, candidates, potential_behind, refuse_other
from .entries import Entry, EntrySet, Phases, Reference, fractions_of
from .entry_files import MaterialsProject, read_entries
from .relax import Relaxed
from .scales import common_scale, corrected, elemental_offsets, elemental_references, formation_energy, refuse_mixing

_FEW = 5  # compounds; with fewer of them the hull is likely too high
_OFFSET = 0.05  # eV/atom
Referenced = Union[None, str, Path, Sequence[Entry], Reference]
"""Where competing phases come from: made here (None), a file, ``"mp"``, entries, or anything with `phases`."""


@dataclass(frozen=True)
class Part:
    """One of the phases that a crystal falls apart into."""

    formula: str
    """Reduced formula."""
    fraction: float
    """Share of the atoms that end in it; all parts sum to 1."""
    energy_per_atom: float
    """eV/atom, on the scale of the hull."""
    formation_energy_per_atom: float
    """eV/atom."""
    source: str
    """Where its energy comes from."""
    name: str
    """What it is called there."""


@dataclass(frozen=True)
class HullResult:
    """Where a crystal stands relative to the convex hull. Numbers are None where there are none, and `reason` says why."""

    name: str
    """Material id, or where the crystal stands."""
    formula: str
    """Of the cell; empty for a row that is no crystal."""
    e_above_hull: float | None
    """eV/atom above the hull of the competing phases, to which the crystal itself does not belong (unless the reference holds it);
    negative: below them, so that it is stable and takes part in the new hull."""
    formation_energy_per_atom: float | None
    """eV/atom, from the elements at their lowest."""
    energy_per_atom: float | None
    """eV/atom on the scale of the hull, corrections included."""
    decomposition: tuple[Part, ...]
    """The phases with the lowest energy at this composition, the largest first."""
    corrections: tuple[tuple[str, float], ...]
    """What was added to the energy, eV/atom: ``("anion correction (oxide)", -0.41)``."""
    scale: str
    """Energy scale of the hull."""
    protocol: str
    """Where the energy and the competing phases come from."""
    position: int = 0
    """Of the crystal among those given, from 0."""
    competing: int = 0
    """Competing phases of the chemical system, elements included; of each formula only the lowest counts."""
    few: str = ""
    """What competes, where that is little: fewer than five compounds. The hull is then likely too high."""
    missing: tuple[str, ...] = ()
    """Phases that should compete and do not: each with the reason. The hull can only be too high for it, `e_above_hull` too low."""
    warning: str = ""
    """What to keep in mind: a relaxation that is not finished, an element that the potential gets wrong."""
    reason: str = ""
    """Why there is no energy above the hull; empty if there is one."""
    atoms: Atoms | None = field(default=None, repr=False)
    """The crystal that the energy belongs to: relaxed, if it was relaxed."""
    relaxed: Relaxed | None = field(default=None, repr=False)
    """Its relaxation, if there was one."""

    @property
    def ok(self) -> bool:
        """Whether there is an energy above the hull."""
        return self.e_above_hull is not None

    def stable(self, below: float = 0.05) -> bool | None:
        """Whether it is at most so far above the hull, eV/atom; None if that is not known."""
        return None if self.e_above_hull is None else self.e_above_hull <= below

    def row(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON and tables."""
        left_out = ("atoms", "relaxed", "decomposition", "corrections", "missing")
        return {
            **{key: value for key, value in vars(self).items() if key not in left_out},
            "decomposition": [vars(part) for part in self.decomposition],
            "corrections": dict(self.corrections),
            "missing": list(self.missing),
            "reason": self.reason or None,
        }


class Hull:
    """Convex hull of one chemical system.

    Parameters
    ----------
    phases : Phases
        What competes, on one scale. On the scale `MP2020` the elements of the Materials Project are added.
    elements : frozenset of str
        The chemical system.
    scale : str
        Of the phases.

    Raises
    ------
    StabilityError
        An element has no energy, or pymatgen finds no hull.
    """

    def __init__(self, phases: Phases, elements: frozenset[str], scale: str) -> None:
        from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
        from pymatgen.core import Composition, Element

        self.phases = phases
        self.scale = scale
        lowest: dict[tuple[tuple[str, float], ...], Entry] = {}
        for entry in (*phases.entries, *_elements_of(elements, scale)):
            if entry.scale != scale:
                raise StabilityError(f"{entry.formula} ({entry.source}) is on the scale {entry.scale}, the hull on {scale}")
            key = tuple((symbol, round(share, 8)) for symbol, share in sorted(entry.fractions.items()))
            if key not in lowest or entry.energy_per_atom < lowest[key].energy_per_atom:
                lowest[key] = entry
        self.elements = {next(iter(e.elements)): e.energy_per_atom for e in lowest.values() if len(e.elements) == 1}
        if lacking := sorted(elements - self.elements.keys()):
            raise StabilityError(f"the hull has no energy of elemental {', '.join(lacking)}")
        self.entries = tuple(lowest.values())
        given = {next(iter(entry.elements)) for entry in phases.entries if len(entry.elements) == 1}
        self.added = tuple(sorted(elements - given))
        """Elements that the phases do not hold, so that they are those of the Materials Project."""
        made = [PDEntry(Composition(entry.fractions), entry.energy_per_atom, attribute=entry) for entry in self.entries]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._diagram: Any = PhaseDiagram(made, [Element(symbol) for symbol in sorted(elements)])
            except Exception as error:  # qhull
                raise StabilityError(f"there is no hull of {'-'.join(sorted(elements))}: {error}") from error

    @property
    def stable(self) -> tuple[Entry, ...]:
        """The phases that make the hull, the elements among them."""
        return tuple(entry.attribute for entry in self._diagram.stable_entries)

    @property
    def edges(self) -> tuple[tuple[Entry, Entry], ...]:
        """Pairs of phases that are in equilibrium with each other."""
        entries = self._diagram.qhull_entries
        pairs = {pair for facet in self._diagram.facets for pair in combinations(sorted(int(k) for k in facet), 2)}
        return tuple((entries[a].attribute, entries[b].attribute) for a, b in sorted(pairs))

    def below(self, fractions: Mapping[str, float]) -> tuple[float, tuple[Part, ...]]:
        """Energy of the hull at a composition (eV/atom), and the phases there, the largest first."""
        from pymatgen.core import Composition

        found, energy = self._diagram.get_decomp_and_hull_energy_per_atom(Composition(dict(fractions)))
        parts = []
        for item, share in found.items():
            entry = item.attribute
            formation = formation_energy(entry.fractions, entry.energy_per_atom, self.elements)
            part = Part(entry.reduced_formula, float(share), entry.energy_per_atom, formation, entry.source, entry.name)
            parts.append(part)
        return float(energy), tuple(sorted(parts, key=lambda part: -part.fraction))


def hull_distance(
    crystals: Given,
    potential: str | BaseCalculator | Potential = "7net-0",
    reference: Referenced = None,
    *,
    relax: bool = False,
    energies: Energies = None,
    scale: str | None = None,
    reference_scale: str | None = None,
    effort: str = "normal",
    cache: Cache | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    making: Progress | None = None,
    **settings: Any,
) -> Any:
    """How far crystals are above the convex hull of competing phases.

    Parameters
    ----------
    crystals : path, Atoms, Relaxed, CrystalSet, or sequence of Atoms and Relaxed
        A `Relaxed` (of :func:`asegen.stability.relax.relax`) brings its energy along.
    potential : str, ASE calculator or Potential
        For crystals without an energy, and for competing phases that are made here.
    reference : None, path, "mp", sequence of Entry, or Reference
        Competing phases: a file (see :func:`asegen.stability.entry_files.read_entries`), the Materials Project online (``"mp"``, with
        ``$MP_API_KEY``), or entries. None: they are made here and relaxed with the same potential, and kept on disk
        (see :class:`asegen.stability.competing.CompetingPhases`).
    relax : bool
        Relax the crystals first. Default: energies of the crystals as given.
    energies : str, array or None
        Energies of the cells in eV that are known already, or the name of an entry of ``atoms.info`` that holds them, or
        ``"calculator"``; then `scale` says on which scale: ``"PBE(+U)"``, ``"MP2020"``, or a calculator's own.
    scale : str, optional
        Of `energies`.
    reference_scale : str, optional
        Of the energies of the reference file.
    effort : str
        For competing phases that are made: ``"quick"``, ``"normal"``, ``"thorough"``.
    cache : Cache, optional
        Where phases that were made are kept; default: the user's cache folder.
    processes : int, optional
        Default: one per core.
    progress, making : callable, optional
        Get (finished, all) of the crystals, and of the competing phases of a chemical system that is made.
    **settings
        Of the relaxation of the crystals, see :class:`asegen.stability.relax.Settings`.

    Returns
    -------
    HullResult or list of HullResult
        One for one crystal, else a list in order. A crystal that cannot be judged has a `reason` and stops no other.

    Raises
    ------
    StabilityError
        Energies of different scales or potentials, which cannot be compared; a reference without a known scale; no key for the
        Materials Project; something that is no crystal, no potential or no reference.
    DataError
        A file that cannot be read.

    Notes
    -----
    Energies of PBE(+U), such as those of 7net, are corrected by MaterialsProject2020Compatibility and compared on its scale, on which
    the elements are those of the Materials Project. Energies of other calculators are compared only with their own.

    Examples
    --------
    >>> from asegen.stability.hull import hull_distance
    >>> result = hull_distance(atoms, "7net-0", "mp2020_formation_energies.csv.gz", relax=True)
    >>> result.e_above_hull, [(part.formula, part.fraction) for part in result.decomposition]
    """
    evaluates = energies is None and not _bring_energies(crystals)
    # neither weights nor their package are needed where all energies are known
    model = potential_of(potential) if evaluates or reference is None else None
    known = reference_of(reference, model, reference_scale, effort, cache, processes, making)
    if evaluates and model is not None:
        refuse_mixing(model.scale, f"the energy of {model.name}", known.scale, known.name)
    elif scale:
        refuse_mixing(scale, "the energy given", known.scale, known.name)
    given = candidates(crystals, model, relax=relax, energies=energies, scale=scale, processes=processes, progress=progress, **settings)
    for one in given:
        if one.energy is not None:
            refuse_mixing(one.scale, f"the energy of {one.name}", known.scale, known.name)
            refuse_other(one, known)
    hulls: dict[frozenset[str], Hull | str] = {}
    known.prepare([frozenset(one.atoms.get_chemical_symbols()) for one in given if one.atoms is not None and one.energy is not None])
    results = [replace(_judged(one, known, hulls), position=position) for position, one in enumerate(given)]
    return results[0] if isinstance(crystals, (Atoms, Relaxed)) else results


def reference_of(
    given: Referenced,
    model: Potential | None,
    scale: str | None = None,
    effort: str = "normal",
    cache: Cache | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
) -> Reference:
    """What `hull_distance` takes as a reference, ready to be asked."""
    from .proposals import EFFORTS

    if effort not in EFFORTS:
        raise StabilityError(f"effort {effort!r} is not known; known are {', '.join(EFFORTS)}")
    if given is None:
        if model is None:
            raise StabilityError("there is neither a reference nor a potential to make competing phases with")
        from .competing import CompetingPhases

        return CompetingPhases(model, effort=effort, cache=cache, processes=processes, progress=progress)
    if isinstance(given, str) and given.lower() == "mp":
        return MaterialsProject()
    if isinstance(given, (str, Path)):
        return read_entries(given, scale)
    if isinstance(given, (list, tuple)):
        return EntrySet(given)
    if not all(hasattr(given, name) for name in ("scale", "name", "prepare", "phases")):
        raise StabilityError(f"a reference cannot be of type {type(given).__name__}: give a file, 'mp', entries, or nothing")
    return cast(Reference, given)


def _bring_energies(crystals: Given) -> bool:
    return isinstance(crystals, Relaxed) or (isinstance(crystals, (list, tuple)) and all(isinstance(one, Relaxed) for one in crystals))


def _judged(one: Candidate, reference: Reference, hulls: dict[frozenset[str], Hull | str]) -> HullResult:
    scale = common_scale(reference.scale)
    formula = "" if one.atoms is None else str(one.atoms.get_chemical_formula("metal"))
    common: dict[str, Any] = {"name": one.name, "formula": formula, "scale": scale, "warning": one.warning}
    common |= {"atoms": one.atoms, "relaxed": one.relaxed}
    nothing: dict[str, Any] = dict.fromkeys(("e_above_hull", "formation_energy_per_atom", "energy_per_atom"))
    nothing |= {"decomposition": (), "corrections": ()}
    if one.reason or one.energy is None or one.atoms is None:
        return HullResult(**common, **nothing, protocol=one.how, reason=one.reason or "it has no energy")
    fractions = fractions_of(formula)
    elements = frozenset(fractions)
    if elements not in hulls:
        try:
            hulls[elements] = Hull(reference.phases(elements), elements, scale)
        except StabilityError as error:
            hulls[elements] = str(error)
    hull = hulls[elements]
    if isinstance(hull, str):
        return HullResult(**common, **nothing, protocol=f"{one.how}; {reference.name}", reason=hull)
    try:
        brought = corrected(one.atoms, one.energy, one.scale) if scale == MP2020 else None
    except StabilityError as error:
        return HullResult(**common, **nothing, protocol=f"{one.how}; {hull.phases.protocol}", reason=str(error))
    count = len(one.atoms)
    energy = (one.energy if brought is None else brought.energy) / count
    bottom, parts = hull.below(fractions)
    parts_of_correction = () if brought is None else tuple((name, value / count) for name, value in brought.corrections)
    way = f"energy: {one.how}, scale {one.scale}"
    if one.scale != scale:
        way += f", brought to {scale} by pymatgen's MaterialsProject2020Compatibility"
    if scale == MP2020:
        way += "; elements: Materials Project"
        if one.potential is not None and potential_behind(reference) is None:
            way += f"; energies of {one.potential} against a hull of DFT energies"
    warning = "; ".join(word for word in (one.warning, _offset(one, parts) if scale == MP2020 else "") if word)
    return HullResult(
        **{**common, "warning": warning},
        e_above_hull=energy - bottom,
        formation_energy_per_atom=formation_energy(fractions, energy, hull.elements),
        energy_per_atom=energy,
        decomposition=parts,
        corrections=parts_of_correction,
        protocol=f"{way}; competing phases: {hull.phases.protocol}",
        competing=len(hull.entries),
        few=_few(hull),
        missing=hull.phases.missing,
    )


def _few(hull: Hull) -> str:
    """What competes, where that is little; nothing is said of elements alone."""
    compounds = sorted({entry.reduced_formula for entry in hull.entries if len(entry.elements) > 1})
    if len(hull.elements) < 2 or len(compounds) >= _FEW:
        return ""
    which = f"only {', '.join(compounds)} to compete" if compounds else "no compound to compete"
    elements = f"; the elements {', '.join(hull.added)} are those of the Materials Project" if hull.added else ""
    return f"{'-'.join(sorted(hull.elements))}: there is {which}{elements}"


def _offset(one: Candidate, parts: Sequence[Part]) -> str:
    """Which of the elements that it would fall apart into its potential puts far from the Materials Project's energy."""
    known = elemental_offsets().get(one.potential or "", {})
    large = [f"{part.formula} {known[part.formula]:+.3f}" for part in parts if abs(known.get(part.formula, 0.0)) > _OFFSET]
    return f"{one.potential} is off the Materials Project's elements (eV/atom): {', '.join(large)}" if large else ""


def _elements_of(elements: frozenset[str], scale: str) -> list[Entry]:
    if scale != MP2020:
        return []
    known = elemental_references()
    return [
        Entry(symbol, known[symbol].energy_per_atom, scale, "Materials Project", known[symbol].material_id)
        for symbol in sorted(elements)
        if symbol in known
    ]


__all__ = ["Hull", "HullResult", "Part", "Reference", "hull_distance", "reference_of"]
