"""`search`: from a formula to its structures of low energy, by random starts or by those that a model proposes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from ...calculators import potentials
from ...calculators.potentials import Potential
from ...checkpoint import Checkpoint
from ...errors import StabilityError
from ...formulas import formula_of, numbers_of
from ...starts import seed_of
from ...store import Journal, from_json, to_json
from ..distinct import Found, leaders
from ..files import RESULTS, open_folder, results_of, write_extxyz
from ..relax import Progress, Relaxed, Settings, relax_each
from .random_starts import VOLUMES, estimated_volume, random_start

METHODS = ("random", "score", "prototypes")
"""Where the starts come from: AIRSS-like random crystals, the score model alone, or the prototype model."""
STRUCTURES = "structures.extxyz"


@dataclass(frozen=True)
class Search:
    """What a search has found, and what it took."""

    formula: str
    """Content of the cell."""
    method: str
    """One of `METHODS`."""
    potential: str
    """Name of the potential."""
    scale: str
    """Its energy scale."""
    rows: tuple[dict[str, Any], ...] = field(repr=False)
    """A row for each start: ``position``, ``seed``, ``method``, ``start`` (``free``, ``symmetric``, ``random``, ``prototype`` or
    ``sites``), ``structure`` (place among the structures from 1, None if not converged), ``start_volume`` (Å³ per atom) and the
    numbers of :class:`asegen.stability.relax.Relaxed`."""
    structures: tuple[Found, ...] = field(repr=False)
    """Distinct structures whose relaxation converged, lowest energy first."""
    seconds: float
    """Time that this call took, s; what an earlier one had kept in `out` took none."""

    @property
    def n(self) -> int:
        """Starts."""
        return len(self.rows)

    @property
    def converged(self) -> float:
        """Share of the starts whose relaxation converged, 0 to 1."""
        return sum(bool(row["converged"]) for row in self.rows) / len(self.rows)

    @property
    def calls(self) -> int:
        """Calls of the potential."""
        return sum(int(row["calls"]) for row in self.rows)

    @property
    def best(self) -> Found | None:
        """The structure of lowest energy, None if no relaxation converged."""
        return self.structures[0] if self.structures else None

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values, without the crystals."""
        return {
            "formula": self.formula,
            "method": self.method,
            "potential": self.potential,
            "scale": self.scale,
            "n": self.n,
            "converged": self.converged,
            "calls": self.calls,
            "seconds": self.seconds,
            "structures": [
                {
                    "energy_per_atom": found.energy_per_atom,
                    "above_best": found.energy_per_atom - self.structures[0].energy_per_atom,
                    "spacegroup": found.spacegroup,
                    "volume_per_atom": float(found.atoms.get_volume() / len(found.atoms)),
                    "times": found.times,
                    "starts": list(found.starts),
                    "seed": found.seed,
                }
                for found in self.structures
            ],
            "rows": list(self.rows),
        }


def search(
    formula: str,
    n: int = 20,
    method: str = "random",
    units: int = 1,
    *,
    symmetric_share: float = 0.5,
    volumes: tuple[float, float] = VOLUMES,
    potential: str | BaseCalculator | Potential = "7net-0",
    seed: int = 0,
    checkpoint: str | Path | Checkpoint = "default",
    processes: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Search:
    """Search for the structures of a formula.

    Parameters
    ----------
    formula : str
        Content of the cell, as written: ``"SrTiO3"`` has five atoms.
    n : int
        Starts.
    method : str
        ``"random"``: :func:`random_start`. ``"score"``: the score model alone from random atoms (``generate(start="random")``).
        ``"prototypes"``: the most probable prototypes (``generate(start="prototypes")``).
    units : int
        Formula units in the cell.
    symmetric_share : float
        Share of the random starts that have a space group, 0 to 1. They keep it while they are relaxed; the others are free. Of the
        models' starts those of the score model are free, prototypes keep their group.
    volumes : (float, float)
        Range of the volumes of random starts over the estimate from covalent radii; fluorides and oxides need more than the
        default, which is UniMat's.
    potential : str, ASE calculator or Potential
        See :func:`asegen.calculators.potentials.potential`.
    seed : int
        The same seed gives the same starts, whatever the number of processes; a larger `n` adds to those of a smaller one.
    checkpoint : str, path or Checkpoint
        For the models.
    processes : int, optional
        Default: one per core.
    out : path, optional
        Folder for ``results.jsonl`` (a line as soon as a start is relaxed) and ``structures.extxyz`` (the distinct structures, lowest
        first). A killed run goes on from it, and so does one with a larger `n`.
    overwrite : bool
        Replace what is in `out`.
    progress : callable, optional
        Gets (starts relaxed, all).
    **settings
        Of the relaxation, see :class:`asegen.stability.relax.Settings`; ``symmetry`` holds for all starts if it is given.

    Returns
    -------
    Search

    Raises
    ------
    FormulaError
        A formula that cannot be read, or outside what the checkpoint has seen.
    StabilityError
        An unknown method, no starts, an impossible setting; an element that the potential does not know.
    AsegenError
        `out` holds the results of another search.

    References
    ----------
    Pickard and Needs, J. Phys.: Condens. Matter 23, 053201 (2011) (AIRSS).

    Examples
    --------
    >>> found = search("SrTiO3", n=50)
    >>> [(s.energy_per_atom, s.spacegroup, s.times) for s in found.structures[:3]]
    """
    begin = time.monotonic()
    model, numbers = _checked(formula, n, method, units, symmetric_share, potential, seed)
    settings = {"path": False, **settings}
    Settings(**_known(settings))
    given = {"formula": formula_of(numbers), "method": method, "seed": seed, "potential": model.name, **settings}
    if method == "random":
        given |= {"symmetric_share": symmetric_share, "volumes": list(volumes)}
    else:
        given |= {"checkpoint": getattr(checkpoint, "name", str(checkpoint))}
    journal = None
    if out is not None:
        journal = Journal(Path(out) / RESULTS, {"search": given})
        open_folder(out, (RESULTS, STRUCTURES), overwrite)
    rows: dict[int, dict[str, Any]] = {}
    atoms: dict[int, Atoms] = {}
    for entry in journal.entries() if journal is not None else ():
        place = entry["row"]["position"]
        if place < n:
            rows[place] = entry["row"]
            if entry["atoms"] is not None:
                atoms[place] = from_json(entry["atoms"])[1]
                results = {key: np.asarray(value)[()] for key, value in entry["results"].items()}
                atoms[place].calc = SinglePointCalculator(atoms[place], **results)
    todo = [k for k in range(n) if k not in rows]
    if progress is not None:
        progress(n - len(todo), n)
    starts = make_starts(formula, n, method, units, symmetric_share, volumes, seed, checkpoint, todo) if todo else {}
    for place, result in _relaxations(starts, model, processes, settings):
        rows[place] = _row(place, method, starts[place], result)
        if result.energy is not None:
            atoms[place] = result.atoms
        if journal is not None:
            kept = place in atoms
            structure = to_json(place, _plain(atoms[place])) if kept else None
            journal.add([{"row": rows[place], "atoms": structure, "results": results_of(atoms[place]) if kept else None}])
        if progress is not None:
            progress(len(rows), n)
    if not rows:
        what = f"none of the {n} starts of {given['formula']} could be made"
        raise StabilityError(f"{what}: their atoms lie on each other; try --method random")
    structures = _structures(rows, atoms, processes)
    for number, found in enumerate(structures, start=1):
        for place in found.starts:
            rows[place] = {**rows[place], "structure": number}
    # a place for which no start could be made has no row
    ordered = [rows[k] for k in sorted(rows)]
    if out is not None:
        write_extxyz(Path(out) / STRUCTURES, [_labelled(found, model) for found in structures])
    return Search(given["formula"], method, model.name, model.scale, tuple(ordered), structures, time.monotonic() - begin)


def make_starts(
    formula: str,
    n: int,
    method: str,
    units: int = 1,
    symmetric_share: float = 0.5,
    volumes: tuple[float, float] = VOLUMES,
    seed: int = 0,
    checkpoint: str | Path | Checkpoint = "default",
    wanted: Sequence[int] | None = None,
) -> dict[int, Atoms]:
    """Starts of a search by their position; each is the same whatever else is asked for.

    Parameters
    ----------
    formula, n, method, units, symmetric_share, volumes, seed, checkpoint
        See :func:`search`.
    wanted : sequence of int, optional
        Positions; default: all n.
    """
    places = list(range(n)) if wanted is None else list(wanted)
    if method == "random":
        # symmetric ones evenly among the others
        turn = {k: int((k + 1) * symmetric_share + 1e-9) > int(k * symmetric_share + 1e-9) for k in places}
        return {k: random_start(formula, units, seed_of(seed, k), turn[k], volumes=volumes) for k in places}
    from ...generation import generate

    # the model is not asked again for what is not wanted
    done = {k: Atoms() for k in set(range(n)) - set(places)}
    start = "random" if method == "score" else "prototypes"
    made = generate(formula, n, units, seed, start=start, checkpoint=checkpoint, done=done)
    # a place that stays empty (generate warns) has no start; the others then know their own
    found = {int(atoms.info.get("place", k)): atoms for k, atoms in enumerate(made)}
    return {k: found[k] for k in places if k in found}


def _checked(
    formula: str, n: int, method: str, units: int, share: float, which: str | BaseCalculator | Potential, seed: int
) -> tuple[Potential, np.ndarray]:
    """The potential and the atomic numbers, or what is wrong with the request."""
    if method not in METHODS:
        raise StabilityError(f"method = {method!r} is not one of {', '.join(METHODS)}")
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise StabilityError(f"n = {n!r} is not a positive number of starts")
    if not 0 <= share <= 1:
        raise StabilityError(f"symmetric_share = {share} must be between 0 and 1")
    if seed < 0:
        raise StabilityError(f"seed = {seed} must not be negative")
    numbers = numbers_of(formula, units)
    model = potentials.potential(which)
    if (refusal := model.refusal(Atoms(numbers=numbers))) is not None:
        raise StabilityError(f"{formula}: {refusal}")
    if method == "random":
        estimated_volume(numbers)  # says which element has none
    return model, numbers


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    known = set(Settings.__dataclass_fields__)
    if unknown := set(settings) - known:
        raise StabilityError(f"no setting {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return settings


def _relaxations(
    starts: dict[int, Atoms], model: Potential, processes: int | None, settings: dict[str, Any]
) -> Iterator[tuple[int, Relaxed]]:
    """(position, result) of every start: those with a group keep it, the others are free."""
    groups: dict[str, list[int]] = {"keep": [], "free": []}
    for place, atoms in starts.items():
        groups["free" if _is_free(atoms) else "keep"].append(place)
    if "symmetry" in settings:
        groups = {settings["symmetry"]: list(starts)}
    for symmetry, places in groups.items():
        if places:
            options = {**settings, "symmetry": symmetry}
            for k, result in relax_each([starts[place] for place in places], model, processes=processes, **options):
                yield places[k], result


def _is_free(atoms: Atoms) -> bool:
    return atoms.info.get("start", "random") in ("free", "random")


def _row(place: int, method: str, start: Atoms, result: Relaxed) -> dict[str, Any]:
    numbers = result.row()
    return {
        "position": place,
        "name": f"{method}-{place}",
        "seed": int(start.info["seed"]),
        "method": method,
        "start": str(start.info.get("start", "random")),
        "structure": None,
        "start_volume": float(start.get_volume() / len(start)),
        **numbers,
    }


def _structures(rows: dict[int, dict[str, Any]], atoms: dict[int, Atoms], processes: int | None) -> tuple[Found, ...]:
    good = [place for place in sorted(rows) if rows[place]["converged"] and place in atoms]
    energy = {place: float(rows[place]["energy_per_atom"]) for place in good}
    leader = leaders([_plain(atoms[place]) for place in good], list(energy.values()), processes=processes)
    members: dict[int, list[int]] = {}
    for place, k in zip(good, leader, strict=True):
        members.setdefault(good[k], []).append(place)
    return tuple(
        Found(atoms[best], energy[best], rows[best]["spacegroup"], tuple(members[best]), rows[members[best][0]]["seed"])
        for best in sorted(members, key=lambda place: (energy[place], place))
    )


def _labelled(found: Found, model: Potential) -> Atoms:
    atoms = found.atoms.copy()
    atoms.calc = found.atoms.calc
    atoms.info = {"energy_per_atom": found.energy_per_atom, "spacegroup": found.spacegroup, "times": found.times}
    atoms.info.update(seed=found.seed, potential=model.name, scale=model.scale)
    return atoms


def _plain(atoms: Atoms) -> Atoms:
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
