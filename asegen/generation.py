"""`generate`: from formulas, or from nothing, to crystals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from .checkpoint import Checkpoint, load_checkpoint
from .devices import resolve_device
from .dynamics.annealed import make_walk
from .dynamics.batched import sample
from .dynamics.rules import Walk
from .errors import AsegenError, CheckpointError, FormulaError
from .prototypes.model import PrototypeModel
from .starts import Request, Start, free_crystal, make_starts, prototypes_for, seed_of

SYSTEMS = ("diffusion", "structrepdiff")
"""Systems that generate."""


def generate(
    formula: str | Sequence[str] | None = None,
    n: int = 1,
    units: int | Sequence[int] = 1,
    seed: int = 0,
    *,
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
        Content of the primitive cell, as written: ``"SrTiO3"`` has five atoms, ``"Sr2Ti2O6"`` ten. None: elements and
        numbers of atoms are generated too (de novo), or `sites` says them.
    n : int
        Crystals per formula (and per entry of `units`).
    units : int or list of int
        Formula units in the cell.
    seed : int
        The same seed gives the same crystals, whatever the batch size and whatever else is generated after them.
    start : str, optional
        ``"prototypes"``: the most probable prototypes of the formula, each with its space group, its free parameters as the
        model predicts them; where these run out, random sites of a space group, filled by the score model. ``"random"``: the
        score model alone, from random atoms. Default: prototypes, if there is a formula and a prototype model.
    spacegroup : int or str, optional
        Group that all crystals must have: a number or a symbol.
    sites : str, optional
        Wyckoff positions to occupy, such as ``"Fe:4c,4a O:8d"``; needs `spacegroup`.
    new : bool
        Look for what the training data do not hold: known crystals of this very formula no longer come first, and count as
        evidence against their prototype. Default: they come first.
    diversity : float
        Between 0 (candidates in the order of their probability) and 1 (like candidates only at the end).
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
        sites), and for prototypes ``info["probability"]`` and ``info["known"]`` (the training data hold this formula in this
        prototype). ``random_crystal(formula, units, seed=s)`` followed by ``AnnealedLangevin(atoms, seed=s)`` with
        ``s = info["seed"]`` gives a crystal of ``start="random"`` again.

    Raises
    ------
    FormulaError
        A formula that cannot be read, or outside what the checkpoint has seen.
    CheckpointError
        No such checkpoint, or damaged.
    GroupError, SitesError
        No such space group; sites or a formula that it cannot hold.

    Examples
    --------
    >>> crystals = generate("SrTiO3", n=16, seed=0)
    >>> crystals = generate(["Sr2Ti2O6", "NaCl"], n=4, start="random")
    >>> crystals = generate("SrTiO3", n=4, spacegroup="Pm-3m")
    >>> crystals = generate(n=8)
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
    if system == "structrepdiff":
        if formula is not None or units != 1 or start or spacegroup is not None or sites or new or refine or prototypes is not None:
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
    full = make_walk(None, Walk.of(loaded.walk_defaults), steps)
    request = request_of(formula, n, units, seed, start=start, spacegroup=spacegroup, sites=sites, new=new, diversity=diversity)
    starts = make_starts(loaded, request, prototypes_for(loaded, request, prototypes))
    results: list[Atoms | None] = [None] * len(starts)
    for position, atoms in (done or {}).items():
        results[position] = atoms
    # what a kind of start still has to go through; None: it is finished
    walks: dict[str, Walk | None] = {"random": full, "sites": full, "prototype": refining_walk(loaded, refine)}
    lengths = [walk.steps if (walk := walks[s.kind]) else 0 for s in starts]
    with _bar(progress, sum(lengths)) as advance:
        advance(sum(length for length, atoms in zip(lengths, results, strict=True) if atoms is not None))
        for kind, walk in walks.items():
            missing = [k for k, s in enumerate(starts) if s.kind == kind and results[k] is None]
            for batch in _walk(loaded, [starts[k] for k in missing], walk, where, batch_size, precision, advance):
                finished = []
                for position, atoms in batch:
                    atoms.info.update(checkpoint=loaded.name, checkpoint_hash=loaded.hash, steps=walk.steps if walk else 0)
                    results[missing[position]] = atoms
                    finished.append((missing[position], atoms))
                if on_batch is not None:
                    on_batch(finished)
    return [atoms for atoms in results if atoms is not None]


def request_of(
    formula: str | Sequence[str] | None = None, n: int = 1, units: int | Sequence[int] = 1, seed: int = 0, **options: Any
) -> Request:
    """A :class:`asegen.starts.Request` from what people write."""
    formulas = [formula] if isinstance(formula, str) else None if formula is None else list(formula)
    every = [int(units)] if isinstance(units, (int, np.integer)) else list(units)
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


__all__ = ["SYSTEMS", "file_name", "free_crystal", "generate", "refining_walk", "request_of", "seed_of"]
