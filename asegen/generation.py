"""`generate`: from formulas, or from nothing, to crystals."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .checkpoint import Checkpoint, load_checkpoint
from .crystals import MASK
from .devices import resolve_device
from .dynamics.annealed import make_walk
from .dynamics.batched import sample
from .dynamics.rules import Walk
from .errors import FormulaError
from .formulas import numbers_of
from .prior import random_crystal, start_crystal


def generate(
    formula: str | Sequence[str] | None = None,
    n: int = 1,
    units: int | Sequence[int] = 1,
    seed: int = 0,
    *,
    checkpoint: str | Path | Checkpoint = "default",
    steps: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | Callable[[int, int], None] = False,
    on_batch: Callable[[list[tuple[int, Atoms]]], None] | None = None,
    done: dict[int, Atoms] | None = None,
) -> list[Atoms]:
    """Generate crystals.

    Parameters
    ----------
    formula : str or list of str, optional
        Taken as written: ``"SrTiO3"`` has five atoms in the cell, ``"Sr2Ti2O6"`` ten. None: elements and numbers of atoms
        are generated too (de novo).
    n : int
        Crystals per formula (and per entry of `units`).
    units : int or list of int
        Formula units in the cell.
    seed : int
        The same seed gives the same crystals, whatever the batch size and whatever else is generated after them.
    checkpoint : str, path or Checkpoint
        Packaged name or file.
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

    Returns
    -------
    list of ase.Atoms
        n crystals of the first formula, then n of the second, … Each has ``info["seed"]``, ``info["checkpoint"]``,
        ``info["checkpoint_hash"]`` and ``info["steps"]``. ``random_crystal(formula, units, seed=s)`` followed by
        ``AnnealedLangevin(atoms, seed=s)`` with ``s = info["seed"]`` gives that crystal again.

    Raises
    ------
    FormulaError
        A formula that cannot be read, or outside what the checkpoint has seen.
    CheckpointError
        No such checkpoint, or damaged.

    Examples
    --------
    >>> crystals = generate("SrTiO3", n=16, seed=0)
    >>> crystals = generate(["Sr2Ti2O6", "NaCl"], n=4)
    >>> crystals = generate(n=8)
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
    where = resolve_device(device)
    loaded = load_checkpoint(checkpoint, where)
    walk = make_walk(None, Walk.of(loaded.walk_defaults), steps)
    starts = make_starts(loaded, formula, n, units, seed)
    results: list[Atoms | None] = [None] * len(starts)
    for position, atoms in (done or {}).items():
        results[position] = atoms
    missing = [k for k, atoms in enumerate(results) if atoms is None]
    total = len(starts) * walk.steps
    with _bar(progress, total) as advance:
        advance((len(starts) - len(missing)) * walk.steps)
        batches = sample(
            loaded,
            [starts[k] for k in missing],
            walk,
            device=where,
            batch_size=batch_size,
            precision=precision,
            on_step=lambda crystals, steps: advance(crystals * steps),
        )
        for batch in batches:
            finished = []
            for position, atoms in batch:
                atoms.info.update(checkpoint=loaded.name, checkpoint_hash=loaded.hash, steps=walk.steps)
                results[missing[position]] = atoms
                finished.append((missing[position], atoms))
            if on_batch is not None:
                on_batch(finished)
    return [atoms for atoms in results if atoms is not None]


def make_starts(checkpoint: Checkpoint, formula: str | Sequence[str] | None, n: int, units: int | Sequence[int], seed: int) -> list[Atoms]:
    """Random crystals that a run starts from, in the order of its results."""
    if isinstance(n, bool) or int(n) != n or n < 1:
        raise FormulaError(f"n = {n!r} is not a positive number of crystals")
    every = [units] if isinstance(units, (int, np.integer)) else list(units)
    if formula is None:
        if list(every) != [1]:
            raise FormulaError("units have no meaning without a formula")
        return [free_crystal(checkpoint, seed_of(seed, k)) for k in range(n)]
    formulas = [formula] if isinstance(formula, str) else list(formula)
    if not formulas:
        raise FormulaError("the list of formulas is empty")
    starts: list[Atoms] = []
    for text in formulas:
        for number in every:
            checkpoint.check_numbers(numbers_of(text, number), f"{text} with units={number}" if number != 1 else str(text))
            starts += [random_crystal(text, int(number), seed=seed_of(seed, len(starts) + k)) for k in range(n)]
    return starts


def seed_of(seed: int, position: int) -> int:
    """Seed of the crystal at a position of a run."""
    if seed < 0:
        raise ValueError(f"seed = {seed} must not be negative")
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


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


def file_name(atoms: Atoms, position: int) -> str:
    """Name of a crystal's file: position and formula."""
    return f"{position:04d}_{re.sub(r'[^A-Za-z0-9]', '', atoms.get_chemical_formula('metal'))}"


class _bar:
    """Progress of a run: a rich bar, a callable, or nothing."""

    def __init__(self, progress: bool | Callable[[int, int], None], total: int) -> None:
        self.total, self.count = total, 0
        self.call = progress if callable(progress) else None
        self.bar: Any = None
        self.task: Any = None
        if progress is True:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn("crystal-steps"), TimeRemainingColumn())
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


__all__ = ["file_name", "free_crystal", "generate", "make_starts", "seed_of"]
