"""`generate`: from formulas, or from nothing, to crystals."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from .checkpoint import Checkpoint, load_checkpoint
from .contacts import too_close
from .devices import resolve_device
from .dynamics.annealed import make_walk
from .dynamics.batched import sample
from .dynamics.rules import Walk
from .errors import AsegenError, CheckpointError, FormulaError
from .prototypes.model import PrototypeModel
from .starts import Request, Start, free_crystal, make_starts, prototypes_for, seed_of

SYSTEMS = ("diffusion", "structrepdiff")
"""Systems that generate."""

TRIES = 5
"""Walks of the score model for one crystal, from other seeds, before its place stays empty."""


class GenerationWarning(UserWarning):
    """Some of the crystals asked for could not be made; the message says which and why."""


def generate(
    formula: str | Sequence[str] | None = None,
    n: int = 1,
    units: int | Sequence[int] | None = None,
    seed: int = 0,
    *,
    order: str = "stable",
    start: str | None = None,
    spacegroup: int | str | None = None,
    sites: str | None = None,
    new: bool = False,
    diversity: float = 0.5,
    refine: float = 0.0,
    checkpoint: str | Path | Checkpoint = "default",
    prototypes: str | Path | PrototypeModel | None = None,
    steps: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | Callable[[int, int], None] = False,
    on_batch: Callable[[list[tuple[int, Atoms]]], None] | None = None,
    done: dict[int, Atoms] | None = None,
    system: str = "diffusion",
) -> list[Atoms]:
    """Generate crystals.

    Parameters
    ----------
    formula : str or list of str, optional
        The composition: ``"SrTiO3"``. None: elements and numbers of atoms are generated too (de novo), or `sites` says them.
    n : int
        Crystals per formula (and per entry of `units`).
    units : int or list of int, optional
        Formulas, as written, in the primitive cell: ``"Ti2O4"`` with 1 has six atoms. Default: cells of any size.
    seed : int
        The same seed gives the same crystals, whatever the batch size and whatever else is generated after them.
    order : str
        ``"stable"``: what forms. Known crystals of the composition by their energy above the convex hull, before predicted ones unless
        they lie far above it. ``"likely"``: what a
        database of such crystals would hold, metastable ones too (give `units` with it: the question of the benchmarks).
    start : str, optional
        ``"prototypes"``: the most probable prototypes of the formula, each with its space group, its free parameters as the
        model predicts them; where these run out, random sites of a space group, filled by the score model. ``"random"``: the
        score model alone, from random atoms. Default: prototypes, if there is a formula and a prototype model.
    spacegroup : int or str, optional
        Group that all crystals must have: a number or a symbol.
    sites : str, optional
        Wyckoff positions to occupy, such as ``"Fe:4c,4a O:8d"``; needs `spacegroup`.
    new : bool
        Look for what the training data do not hold: known crystals of the composition are left out, and count as evidence against
        what is like them.
    diversity : float
        Between 0 (every candidate counts for itself) and 1 (what is nearly the same crystal as a better one only at the end).
    refine : float
        Blur the prototypes' crystals by so many Å (about 0.05) and let the score model sharpen them inside their group.
        Default: 0, not at all, which was measured to be as good (README).
    checkpoint : str, path or Checkpoint
        Packaged name or file.
    prototypes : str, path or PrototypeModel, optional
        Default: the packaged model of the checkpoint's name.
    steps : int, optional
        Predictor steps; default: what was measured best for the checkpoint.
    device : str, optional
        Default: a GPU if there is one.
    batch_size : int, optional
        Default: from the free memory.
    precision : str
        ``"bfloat16"`` is 1.6 to 2 times faster (two cores) and no longer the same to rounding in every batch.
    progress : bool or callable
        True shows a bar; a callable gets (crystal-steps done, all).
    on_batch : callable, optional
        Gets every finished batch, a list of (position, crystal).
    done : dict, optional
        Crystals already there by position (from a run that was killed); they are not generated again.
    system : str
        ``"structrepdiff"``: descriptors, composition and cell are generated together, then positions that have them
        (:func:`asegen.structrep.generation.generate_structrep`); `checkpoint` is one of that system (``"perov-5"``, ``"carbon-24"``,
        ``"mp20"``, or a file) and nothing may be given but `n`, `seed`, `steps` and how to run.

    Returns
    -------
    list of ase.Atoms
        n crystals of the first formula, best first, then n of the second, … Each has ``info["seed"]``, ``info["checkpoint"]``,
        ``info["checkpoint_hash"]`` and ``info["steps"]`` (0 where the score model had nothing to do); with a group also
        ``info["rank"]``, ``info["start"]`` (``"prototype"`` or ``"sites"``), ``info["spacegroup"]``, ``info["prototype"]`` (group and
        sites), and for prototypes ``info["probability"]``, ``info["known"]`` (the training data hold this crystal: it has its own cell
        and coordinates, and ``info["material_id"]``), ``info["e_above_hull"]`` (eV/atom) and ``info["e_above_hull_source"]``
        (``"published"``, ``"computed"`` by an interatomic potential, ``"predicted"`` from like crystals).
        ``random_crystal(formula, units, seed=s)`` followed by ``AnnealedLangevin(atoms, seed=s)`` with ``s = info["seed"]`` gives a
        crystal of ``start="random"`` again. Elements stand in the order of the formula. No two atoms are closer than 0.55 of the sum
        of their covalent radii (:mod:`asegen.contacts`): what the score model makes otherwise is made again from another seed.

    Raises
    ------
    FormulaError
        A formula that cannot be read, or outside what the checkpoint has seen.
    CheckpointError
        No such checkpoint, or damaged.
    GroupError, SitesError
        No such space group; sites or a formula that it cannot hold.

    Warns
    -----
    GenerationWarning
        A place stays empty because every try put atoms on each other; the list is then shorter.

    Examples
    --------
    >>> crystals = generate("TiO2", n=8)
    >>> crystals = generate(["Sr2Ti2O6", "NaCl"], n=4, units=1, start="random")
    >>> crystals = generate("SrTiO3", n=4, spacegroup="Pm-3m")
    >>> crystals = generate(n=8)
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
    if system == "structrepdiff":
        if formula is not None or units is not None or start or spacegroup is not None or sites or new or refine or prototypes is not None:
            raise FormulaError("system structrepdiff draws formula and cell itself: it takes no formula, units, start, group or prototypes")
        from .structrep.generation import generate_with_steps

        if isinstance(checkpoint, Checkpoint):
            raise CheckpointError(f"checkpoint '{checkpoint.name}' is not of system structrepdiff")
        with _bar(progress, n, "crystals") as advance:
            return generate_with_steps(n, seed, checkpoint, steps, device, batch_size, advance, on_batch, done)
    if system != "diffusion":
        raise AsegenError(f"no system {system!r}; known are {', '.join(SYSTEMS)}")
    where = resolve_device(device)
    loaded = load_checkpoint(checkpoint, where)
    asked = {"order": order, "start": start, "spacegroup": spacegroup, "sites": sites, "new": new, "diversity": diversity}
    request = request_of(formula, n, units, seed, **asked)
    starts = make_starts(loaded, request, prototypes_for(loaded, request, prototypes))
    made, empty = fill(
        loaded, starts, refine, steps, where, batch_size=batch_size, precision=precision, progress=progress, on_batch=on_batch, done=done
    )
    if empty:
        warnings.warn(told(empty, len(starts)), GenerationWarning, stacklevel=2)
    return made


def told(empty: dict[int, str], total: int) -> str:
    """One sentence about places that stayed empty."""
    position, reason = next(iter(empty.items()))
    return f"{len(empty)} of {total} crystals could not be made; number {position}: {reason}"


def fill(
    checkpoint: Checkpoint,
    starts: Sequence[Start],
    refine: float = 0.0,
    steps: int | None = None,
    device: torch.device | None = None,
    *,
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | Callable[[int, int], None] = False,
    on_batch: Callable[[list[tuple[int, Atoms]]], None] | None = None,
    done: dict[int, Atoms] | None = None,
) -> tuple[list[Atoms], dict[int, str]]:
    """Take starts through what they still need; see :func:`generate` for the rest.

    Returns
    -------
    crystals : list of ase.Atoms
        In the order of `starts`.
    empty : dict of int to str
        Places of `starts` that could not be filled, and why.
    """
    where = device or resolve_device(None)
    full = make_walk(None, Walk.of(checkpoint.walk_defaults), steps)
    results: dict[int, Atoms] = dict(done or {})
    empty: dict[int, str] = {k: start.reason for k, start in enumerate(starts) if start.kind == "none"}
    # what a kind of start still has to go through; None: it is finished
    walks: dict[str, Walk | None] = {"random": full, "sites": full, "prototype": refining_walk(checkpoint, refine), "none": None}
    if walks["prototype"] is not None:
        for start in starts:
            if start.kind == "prototype":
                checkpoint.check_numbers(start.atoms.numbers, "refine needs the score model, and a prototype")
    lengths = [walk.steps if (walk := walks[s.kind]) else 0 for s in starts]
    with _bar(progress, sum(lengths)) as advance:
        advance(sum(length for k, length in enumerate(lengths) if k in results))
        for kind, walk in walks.items():
            pending = {k: s for k, s in enumerate(starts) if s.kind == kind and k not in results and k not in empty}
            for attempt in range(TRIES):
                places, failed = list(pending), {}
                # only the first try counts as progress, so that the bar's length is known
                count = advance if attempt == 0 else lambda _: None
                for batch in _walk(checkpoint, list(pending.values()), walk, where, batch_size, precision, count):
                    finished = []
                    for position, atoms in batch:
                        place = places[position]
                        if reason := too_close(atoms):
                            failed[place] = reason
                            continue
                        atoms.info.update(checkpoint=checkpoint.name, checkpoint_hash=checkpoint.hash, steps=walk.steps if walk else 0)
                        if attempt:
                            atoms.info["tries"] = attempt + 1
                        results[place] = atoms
                        finished.append((place, atoms))
                    if on_batch is not None and finished:
                        on_batch(finished)
                pending = {k: _again(starts[k], attempt + 1) for k in failed if starts[k].again is not None}
                empty |= {k: reason for k, reason in failed.items() if starts[k].again is None or attempt == TRIES - 1}
                if not pending:
                    break
    if empty:
        for place, atoms in results.items():
            atoms.info["place"] = place
    return [results[k] for k in sorted(results)], dict(sorted(empty.items()))


def _again(start: Start, attempt: int) -> Start:
    """The same start from another seed."""
    assert start.again is not None
    other = start.again(seed_of(int(start.atoms.info["seed"]), attempt))
    if "rank" in start.atoms.info:
        other.atoms.info["rank"] = start.atoms.info["rank"]
    return other


def request_of(
    formula: str | Sequence[str] | None = None, n: int = 1, units: int | Sequence[int] | None = None, seed: int = 0, **options: Any
) -> Request:
    """A :class:`asegen.starts.Request` from what people write."""
    formulas = [formula] if isinstance(formula, str) else None if formula is None else list(formula)
    every = None if units is None else [int(units)] if isinstance(units, (int, np.integer)) else list(units)
    return Request(formulas, n, every, seed, **options)


def refining_walk(checkpoint: Checkpoint, blur: float) -> Walk | None:
    """A short deterministic walk down from a blur of so many Å; None for none."""
    if blur == 0:
        return None
    schedule = checkpoint.system.schedule
    times = torch.linspace(0.01, 1, 400, dtype=torch.float64)
    levels = schedule.sigma(times)
    if not float(levels[0]) <= blur <= float(levels[-1]):
        raise ValueError(f"refine = {blur} Å must be 0 or lie between {float(levels[0]):.3f} and {float(levels[-1]):.1f} Å")
    begin = float(times[(levels - blur).abs().argmin()])
    return Walk(steps=max(4, round(20 * begin)), churn=0.0, begin=begin)


def _walk(
    checkpoint: Checkpoint,
    starts: list[Start],
    walk: Walk | None,
    device: torch.device,
    batch_size: int | None,
    precision: str,
    advance: Callable[[int], None],
) -> Iterator[list[tuple[int, Atoms]]]:
    if not starts:
        return
    if walk is None:
        yield [(k, start.atoms) for k, start in enumerate(starts)]
        return
    symmetry = [s for start in starts if (s := start.symmetry) is not None]
    yield from sample(
        checkpoint,
        [start.atoms for start in starts],
        walk,
        symmetry=symmetry or None,
        device=device,
        batch_size=batch_size,
        precision=precision,
        on_step=lambda crystals, steps: advance(crystals * steps),
    )


def file_name(atoms: Atoms, position: int) -> str:
    """Name of a crystal's file: position and formula."""
    return f"{position:04d}_{re.sub(r'[^A-Za-z0-9]', '', atoms.get_chemical_formula('metal'))}"


class _bar:
    """Progress of a run: a rich bar, a callable, or nothing."""

    def __init__(self, progress: bool | Callable[[int, int], None], total: int, what: str = "crystal-steps") -> None:
        self.total, self.count = total, 0
        self.call = progress if callable(progress) else None
        self.bar: Any = None
        self.task: Any = None
        if progress is True:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.task = self.bar.add_task("", total=total)

    def __enter__(self) -> Callable[[int], None]:
        if self.bar is not None:
            self.bar.start()
        return self._advance

    def _advance(self, steps: int) -> None:
        self.count += steps
        if self.call is not None:
            self.call(self.count, self.total)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.count)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()


__all__ = [
    "SYSTEMS",
    "GenerationWarning",
    "file_name",
    "fill",
    "free_crystal",
    "generate",
    "refining_walk",
    "request_of",
    "seed_of",
    "told",
]
