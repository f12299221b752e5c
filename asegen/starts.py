"""What the crystals of a run start from: prototypes, random sites of a space group, or random atoms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from .checkpoint import Checkpoint, load_checkpoint
from .contacts import too_close
from .crystals import MASK
from .errors import CheckpointError, FormulaError
from .formulas import formula_of, numbers_of
from .prior import atomic_volumes, start_crystal
from .prototypes.model import PrototypeModel, load_prototypes, packaged_prototypes
from .prototypes.ranking import ORDERS, Candidate
from .prototypes.table import composition
from .symmetry.constraint import SpaceGroup
from .symmetry.crystal import content, symmetric_crystal
from .symmetry.groups import Group, space_group
from .symmetry.normalizer import SitesKey, canonical_sites
from .symmetry.sites import check_formula, format_sites, groups_that_hold, parse_sites
from .symmetry.symmetry import Symmetry

STARTS = ("prototypes", "random")


def random_crystal(
    formula: str | None = None,
    units: int = 1,
    seed: int | None = None,
    spacegroup: int | str | None = None,
    sites: str | None = None,
) -> Atoms:
    """A random crystal of a formula: uniform positions in a random cell of a volume that fits the elements.

    Parameters
    ----------
    formula : str, optional
        Content of the primitive cell, as written: ``"SrTiO3"`` has five atoms, ``"Sr2Ti2O6"`` ten. May be left out if `sites`
        are given.
    units : int
        Formula units in the cell.
    seed : int, optional
        The same seed gives the same crystal.
    spacegroup : int or str, optional
        Build it on random sites of this group; the crystal then carries a :class:`asegen.SpaceGroup` constraint, which any
        ASE dynamics or optimizer keeps.
    sites : str, optional
        Wyckoff positions, such as ``"Fe:4c,4a O:8d"``; needs `spacegroup`.

    Returns
    -------
    ase.Atoms
        ``info["seed"]`` holds the seed.

    Raises
    ------
    FormulaError
        The formula cannot be read, or names an element that no training crystal holds.
    GroupError, SitesError
        No such group; sites or a formula that it cannot hold.

    Examples
    --------
    >>> atoms = random_crystal("SrTiO3", seed=0)
    >>> len(atoms), atoms.pbc.all()
    (5, np.True_)
    >>> random_crystal("SrTiO3", spacegroup=221, seed=0).constraints[0].degrees_of_freedom
    (0, 1)
    """
    if sites is not None and spacegroup is None:
        raise FormulaError(f"the sites {sites!r} need a space group: Wyckoff letters mean nothing without one")
    if formula is None:
        if sites is None:
            raise FormulaError("random_crystal needs a formula, or a space group and sites")
        formula = formula_of_sites(sites, space_group(spacegroup))  # type: ignore[arg-type]
    numbers = numbers_of(formula, units)
    unknown = [int(z) for z in set(numbers.tolist()) if np.isnan(atomic_volumes()[z])]
    if unknown:
        names = ", ".join(chemical_symbols[z] for z in sorted(unknown))
        raise FormulaError(f"{formula}: no training crystal contains {names}, so there is no atomic volume for it")
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    if spacegroup is not None:
        return symmetric_crystal(numbers, spacegroup, sites, seed)
    return start_crystal(numbers, seed)


@dataclass(frozen=True)
class Start:
    """A crystal before the walk."""

    atoms: Atoms
    """``info`` has the seed and says what the start is."""
    symmetry: Symmetry | None
    """Kept on the way, if any."""
    kind: str
    """``prototype``, ``sites`` (a space group, parameters random), ``random``, or ``none``: there is no other crystal, see `reason`."""
    sites: tuple[tuple[str, str], ...] = ()
    """Element and label of every site, in the order of `symmetry`."""
    reason: str = ""
    """Why there is none."""
    again: Callable[[int], Start] | None = field(default=None, repr=False, compare=False)
    """Another start of the same kind, from another seed; None: there is no other."""


@dataclass(frozen=True)
class Request:
    """What is asked of a run.

    Parameters
    ----------
    formulas : sequence of str, optional
        As written; None: elements are generated too, or the sites say it.
    n : int
        Crystals per formula (and per entry of `units`).
    units : sequence of int, optional
        Formula units in the primitive cell; None: cells of any size.
    seed : int
    order : str
        ``"stable"`` or ``"likely"``, see :meth:`asegen.prototypes.PrototypeModel.rank`.
    start : str, optional
        ``"prototypes"`` or ``"random"``; None: prototypes where there is a formula and a prototype model.
    spacegroup : int or str, optional
    sites : str, optional
        ``"Fe:4c,4a O:8d"``, needs `spacegroup`.
    new : bool
        Leave known crystals of the formula out (see :meth:`asegen.prototypes.PrototypeModel.rank`).
    diversity : float
        See :func:`asegen.prototypes.selection.select`.
    """

    formulas: Sequence[str] | None
    n: int = 1
    units: Sequence[int] | None = None
    seed: int = 0
    order: str = "stable"
    start: str | None = None
    spacegroup: int | str | None = None
    sites: str | None = None
    new: bool = False
    diversity: float = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or int(self.n) != self.n or self.n < 1:
            raise FormulaError(f"n = {self.n!r} is not a positive number of crystals")
        if self.order not in ORDERS:
            raise FormulaError(f"order = {self.order!r} is not one of {', '.join(ORDERS)}")
        if self.start is not None and self.start not in STARTS:
            raise FormulaError(f"start = {self.start!r} is not one of {', '.join(STARTS)}")
        if self.sites is not None and self.spacegroup is None:
            raise FormulaError(f"the sites {self.sites!r} need a space group: Wyckoff letters mean nothing without one")
        if self.formulas is None and self.sites is None:
            if self.units is not None:
                raise FormulaError("units have no meaning without a formula")
            if self.start == "prototypes":
                raise FormulaError("prototypes are chosen for a formula; give one, or start from random atoms (start='random')")
            if self.spacegroup is not None:
                raise FormulaError(f"space group {self.spacegroup} needs a formula, or sites such as 'Fe:4c,4a O:8d'")
        if self.formulas is not None and not self.formulas:
            raise FormulaError("the list of formulas is empty")
        if self.formulas is not None and self.sites is not None and len(self.formulas) > 1:
            raise FormulaError("sites fix the formula; give at most one formula with them")


def seed_of(seed: int, position: int) -> int:
    """Seed of the crystal at a position of a run."""
    if seed < 0:
        raise ValueError(f"seed = {seed} must not be negative")
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def prototypes_for(
    checkpoint: Checkpoint, request: Request, prototypes: str | Path | PrototypeModel | None = None
) -> PrototypeModel | None:
    """The prototype model of a run: the one named, else the packaged one of the checkpoint's name; None for random starts.

    Raises
    ------
    CheckpointError
        Prototypes are asked for and there are none for the checkpoint.
    """
    if request.start == "random" or (request.formulas is None and request.sites is None):
        return None
    if prototypes is not None:
        return load_prototypes(prototypes)
    packaged = packaged_prototypes()
    if checkpoint.name in packaged:
        return load_prototypes(checkpoint.name)
    if request.start == "prototypes":
        raise CheckpointError(
            f"checkpoint '{checkpoint.name}' comes without a prototype model; name one (prototypes='default'), train one"
            " (system = \"prototypes\" in a recipe), or start from random atoms (start='random')"
        )
    return None


def make_starts(checkpoint: Checkpoint, request: Request, prototypes: PrototypeModel | None = None) -> list[Start]:
    """Starts of a run in the order of its results: formula by formula, the most promising first.

    Raises
    ------
    FormulaError
        A formula that cannot be read, that holds an element nobody has seen, that the space group cannot hold, or that only the score
        model could treat and is outside what it has seen.
    """
    if request.formulas is None and request.sites is None:
        def free(seed: int) -> Start:
            return Start(free_crystal(checkpoint, seed), None, "random", again=free)

        return [free(seed_of(request.seed, k)) for k in range(request.n)]
    group = None if request.spacegroup is None else space_group(request.spacegroup)
    starts: list[Start] = []
    for text in request.formulas or [formula_of_sites(str(request.sites), group)]:
        for units in request.units or (None,):
            seeds = [seed_of(request.seed, len(starts) + k) for k in range(request.n)]
            starts += _Planner(checkpoint, request, group, prototypes, str(text), units).starts(seeds)
    return starts


@dataclass(frozen=True)
class _Planner:
    """Starts for one formula."""

    checkpoint: Checkpoint
    request: Request
    group: Group | None
    model: PrototypeModel | None
    text: str
    units: int | None

    def starts(self, seeds: list[int]) -> list[Start]:
        """Prototypes first, then random sites of a space group; random atoms where neither is asked for."""
        numbers = numbers_of(self.text, 1 if self.units is None else self.units)
        unknown = [int(z) for z in dict.fromkeys(numbers.tolist()) if np.isnan(atomic_volumes()[z])]
        if unknown:
            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise FormulaError(f"{self.text}: no training crystal contains {names}, so nothing is known of its crystals")
        sites = self.request.sites
        if sites is not None and self.group is not None:
            parse_sites(sites, self.group, content(self._cell_of_sites(numbers)))
        candidates, novelty = self._candidates(numbers)
        # where the crystal may well have a prototype that nobody has seen, the end of a long list is better spent on the score model
        explored = seeds[len(seeds) - self._free_starts(numbers, len(seeds), novelty) :]
        starts: list[Start] = []
        for candidate in candidates:
            if len(starts) == len(seeds) - len(explored):
                break
            start = prototype_start(candidate, seeds[len(starts)])
            # parameters predicted far from any example can put atoms on each other
            if not too_close(start.atoms):
                starts.append(start)
        if missing := seeds[len(starts) : len(seeds) - len(explored)]:
            cells = self._cells(numbers, candidates)
            seen = {canonical_sites(int(start.atoms.info["spacegroup"]), start.sites) for start in starts}
            for seed, cell in zip(missing, cells(len(missing)), strict=True):
                starts.append(self._drawn(cell, seed, frozenset(seen)))
                if starts[-1].sites:
                    seen.add(canonical_sites(int(starts[-1].atoms.info["spacegroup"]), starts[-1].sites))
        if explored:
            cells = self._cells(numbers, candidates)
            starts += [_random(cell, seed) for seed, cell in zip(explored, cells(len(explored)), strict=True)]
        if self.model is not None or self.group is not None:
            for rank, start in enumerate(start for start in starts if start.kind != "none"):
                start.atoms.info["rank"] = rank + 1
        return starts

    def _cell_of_sites(self, numbers: np.ndarray) -> np.ndarray:
        """Content of the primitive cell: what the sites hold, if that is the formula, else the formula, which is then refused."""
        if self.units is None:
            held = numbers_of(formula_of_sites(str(self.request.sites), self.group))
            if len(held) % len(numbers) == 0 and content(held) == content(np.tile(numbers, len(held) // len(numbers))):
                return held
        return numbers

    def _free_starts(self, numbers: np.ndarray, count: int, novelty: float) -> int:
        """How many of so many crystals begin from random atoms: as many as a new prototype is likely, if a database's order is asked."""
        asked = self.request
        if self.model is None or self.group is not None or asked.order != "likely" or asked.start == "prototypes":
            return 0
        smallest = numbers_of(self.text) if self.units is None else numbers
        if len(smallest) > self.checkpoint.max_atoms or not set(smallest.tolist()) <= self.checkpoint.elements:
            return 0
        return int(min(0.25, novelty) * count)

    def _candidates(self, numbers: np.ndarray) -> tuple[list[Candidate], float]:
        if self.model is None:
            return [], 1.0
        asked = self.request
        units = None if self.units is None and asked.sites is None else 1
        if asked.sites is not None:
            numbers = self._cell_of_sites(numbers)
        candidates, novelty = self.model.rank(
            numbers, units=units, order=asked.order, spacegroup=self.group, new=asked.new, diversity=asked.diversity
        )
        if asked.sites is not None and self.group is not None:
            wanted = canonical_sites(self.group, parse_sites(asked.sites, self.group))
            candidates = [c for c in candidates if canonical_sites(self.group, c.sites) == wanted]
        return candidates, novelty

    def _cells(self, numbers: np.ndarray, candidates: list[Candidate]) -> Callable[[int], list[np.ndarray]]:
        """Contents of the cells that the score model is to fill, most likely sizes first.

        Raises
        ------
        FormulaError, SitesError
            There are none: too large or unknown to the score model, or impossible in the group.
        """
        if self.request.sites is not None:
            cell = self._cell_of_sites(numbers)
            self.checkpoint.check_numbers(cell, self._what(cell))
            return lambda count: [cell] * count
        if self.units is not None:
            self.checkpoint.check_numbers(numbers, self._what(numbers))
            if self.group is not None:
                check_formula(content(numbers), self.group)
            return lambda count: [numbers] * count
        chances = likely_units(numbers, candidates, self.model, self.checkpoint.max_atoms, self.request)
        if self.group is not None:
            held = {k: p for k, p in chances.items() if self.group.number in groups_that_hold(content(np.repeat(numbers, k)))}
            if not held:
                check_formula(content(numbers), self.group)
            chances = held
        if not chances:
            self.checkpoint.check_numbers(numbers, self._what(numbers))
        self.checkpoint.check_numbers(np.repeat(numbers, min(chances)), self._what(numbers))
        return lambda count: [np.repeat(numbers, k) for k in apportion(chances, count)]

    def _what(self, numbers: np.ndarray) -> str:
        size = f" with units={self.units}" if self.units not in (None, 1) else ""
        none = "no known prototype is left for it, and " if self.model is not None else ""
        return f"{none}{self.text}{size}"

    def _drawn(self, numbers: np.ndarray, seed: int, seen: Collection[SitesKey]) -> Start:
        """A start for the score model: random sites of a space group, or random atoms where there are no prototypes at all."""
        if self.model is None and self.group is None:
            return _random(numbers, seed)
        where = self.group or _draw_group(numbers, seed, self.model)
        atoms = symmetric_crystal(numbers, where, self.request.sites, seed, avoid=seen)
        constraint = atoms.constraints[0]
        atoms.set_constraint()
        if self.request.sites is None and canonical_sites(where, constraint.sites) in seen and constraint.degrees_of_freedom == (0, 1):
            # nothing but the volume is free, so it is one of those before it
            return Start(atoms, None, "none", reason=f"{where.symbol} holds no other crystal of {self.text} with so many atoms")
        symbol = f"{where.symbol} {atoms.info.pop('sites')}"
        atoms.info.update(start="sites", prototype=symbol, known=False)
        sites = tuple(constraint.sites)
        return Start(atoms, constraint.symmetry, "sites", sites, again=lambda other: self._drawn(numbers, other, seen))


def _random(numbers: np.ndarray, seed: int) -> Start:
    return Start(start_crystal(numbers, seed), None, "random", again=lambda other: _random(numbers, other))


def likely_units(
    numbers: np.ndarray, candidates: Sequence[Candidate], model: PrototypeModel | None, max_atoms: int, request: Request
) -> dict[int, float]:
    """How likely each number of formula units is, for those that give at most `max_atoms`; empty if even one is too large."""
    if not candidates and model is not None and request.spacegroup is not None:
        candidates, _ = model.rank(numbers, order=request.order)
    written = int(np.gcd.reduce(composition(numbers)[1]))
    chances: dict[int, float] = {}
    for candidate in candidates:
        units, rest = divmod(candidate.units, written)
        if rest == 0 and sum(candidate.prototype.counts) <= max_atoms:
            chances[units] = chances.get(units, 0.0) + candidate.probability
    # what is known of this composition says nothing: small even cells are the most frequent ones
    return chances or {k: 1 / k for k in (1, 2, 4) if k * len(numbers) <= max_atoms}


def apportion(chances: dict[int, float], count: int) -> list[int]:
    """So many choices in proportion to their chances, always the one that is furthest behind; the likeliest first."""
    total, given, chosen = sum(chances.values()), dict.fromkeys(chances, 0), []
    for k in range(count):
        best = max(chances, key=lambda key: (chances[key] / total * (k + 1) - given[key], -key))
        given[best] += 1
        chosen.append(best)
    return chosen


def prototype_start(candidate: Candidate, seed: int) -> Start:
    """The crystal that a prototype predicts, or a known crystal, as a start."""
    atoms, symmetry = candidate.crystal()
    group = space_group(candidate.prototype.number)
    atoms.info.update(
        seed=int(seed),
        spacegroup=group.number,
        start="prototype",
        prototype=f"{group.symbol} {format_sites(candidate.sites)}",
        probability=float(f"{candidate.probability:.6g}"),
        known=candidate.known,
    )
    if candidate.hull_source:
        atoms.info.update(e_above_hull=round(candidate.hull, 4), e_above_hull_source=candidate.hull_source)
    if candidate.material:
        atoms.info["material_id"] = candidate.material_id
    if candidate.handbook:
        atoms.info["handbook"] = True
    return Start(atoms, symmetry, "prototype", tuple(candidate.sites))


def _draw_group(numbers: np.ndarray, seed: int, model: PrototypeModel | None) -> Group:
    """A space group that can hold a formula, as likely as it is rich in prototypes of as many elements."""
    possible = groups_that_hold(content(numbers))
    weight = np.ones(231)
    if model is not None:
        elements = len(composition(numbers)[1])
        weight += model.table.groups[elements] if elements < len(model.table.groups) else 0
    chance = weight[possible]
    return space_group(int(np.random.default_rng([seed, 1]).choice(possible, p=chance / chance.sum())))


def formula_of_sites(sites: str, group: Group | None) -> str:
    """Formula of the primitive cell that sites make."""
    assert group is not None
    numbers: list[int] = []
    for element, label in parse_sites(sites, group):
        numbers += [atomic_numbers[element]] * group.position(label).multiplicity_primitive
    return formula_of(np.array(numbers))


def constrained(start: Start) -> Atoms:
    """A copy of a start's crystal that carries its space group, for ASE dynamics."""
    atoms = start.atoms.copy()
    if start.symmetry is not None:
        group = space_group(int(atoms.info["spacegroup"]))
        atoms.set_constraint(SpaceGroup.of_symmetry(group, start.symmetry, atoms.numbers, start.sites))
    return atoms


def free_crystal(checkpoint: str | Path | Checkpoint = "default", seed: int | None = None) -> Atoms:
    """Start of a de novo crystal: number of atoms and volume drawn from the training data, every element hidden (X).

    Parameters
    ----------
    checkpoint : str, path or Checkpoint
        Whose data to draw from.
    seed : int, optional

    Returns
    -------
    ase.Atoms
        Atomic numbers 0; ``info["reference_volume"]`` in Å³.
    """
    loaded = load_checkpoint(checkpoint)
    if seed is None:
        seed = int(np.random.SeedSequence().generate_state(1)[0])
    table = loaded.header["data"]["sizes"]
    random = np.random.Generator(np.random.Philox(key=[seed % 2**63, 1]))
    sizes = [int(size) for size in table]
    shares = np.array([table[str(size)]["share"] for size in sizes])
    size = int(random.choice(sizes, p=shares / shares.sum()))
    quantiles = table[str(size)]["volume"]
    per_atom = float(np.interp(random.random(), np.arange(0.05, 1.0, 0.1), quantiles))
    return start_crystal(np.full(size, MASK), seed, volume=per_atom * size)


__all__ = ["Request", "Start", "constrained", "free_crystal", "make_starts", "prototypes_for", "random_crystal", "seed_of"]
