"""Structures into descriptors and back, for many crystals, and how many come back right."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from .descriptors.ead import OURS, PAPER
from .descriptors.target import Pooling
from .errors import DataError
from .metrics.crystalset import Crystals, crystal_set
from .metrics.matching import match
from .metrics.pairs import PAPERS
from .metrics.workers import Failure, Workers
from .reconstruction import Rebuilt, rebuild_crystal
from .store import RunFolder

DESCRIPTORS = {"ours": OURS, "paper": PAPER}
"""Parameters by name."""


@dataclass(frozen=True)
class Roundtrip:
    """How many structures came back from their descriptors."""

    n: int
    """Structures tried."""
    match_rate: float
    """Share that matches by the papers' tolerances."""
    rmse: float | None
    """Mean rms displacement of the matched, in units of (V/N)^(1/3)."""
    strict_01: float
    """Share with rms below 0.1."""
    solved: float
    """Share whose descriptor was reached (rms residual below the threshold)."""
    solved_but_wrong: int
    """Structures with the descriptor of the target that do not match it with rms < 0.1: what the descriptor cannot tell apart."""
    seconds_per_structure: float
    """Wall time of the whole run by the number of structures, all processes working."""
    seconds_each: float
    """Mean wall time of one structure in its process."""
    from_prototypes: float
    """Share solved by a prototype, without search."""
    failed: int
    """Structures that could not be treated; they count as not matched."""
    protocol: str
    """What was given, and the tolerances."""
    crystals: list[Atoms | None] = field(repr=False)
    """What came back, in order; None where nothing did."""


def reconstruct(
    crystals: Crystals,
    n: int | None = None,
    *,
    descriptor: str = "ours",
    pooling: Pooling = "sites",
    prototypes: str | None = "default",
    seed: int = 0,
    rounds: int = 18,
    time_limit: float = 90.0,
    processes: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Roundtrip:
    """Turn structures into descriptors and back; cell, formula and number of atoms are given, as in StructRepDiff.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        Structures; rows that are no crystals are left out and counted as failed.
    n : int, optional
        Only so many, drawn with `seed`.
    descriptor : str
        "ours" or "paper".
    pooling : str
        "sites", "moments" or "extrema" (the paper's), see `Target`.
    prototypes : str, optional
        Prototype model whose candidates are tried before the search; None: random starts only.
    seed : int
        Draws structures and searches; a structure's result does not depend on the others.
    rounds : int
        Most rounds of search for a structure.
    time_limit : float
        Seconds after which no further round is begun for a structure.
    processes : int, optional
        Default: one per core.
    out : path, optional
        Folder for the structures; a killed run goes on from it.
    overwrite : bool
        Replace what is in `out`.
    progress : callable, optional
        Called with how many are done and how many there are.

    Raises
    ------
    DataError
        Unknown descriptor or no crystals.
    """
    if descriptor not in DESCRIPTORS:
        raise DataError(f"unknown descriptor {descriptor!r}; known: {', '.join(DESCRIPTORS)}")
    given = crystal_set(crystals)
    chosen = np.arange(len(given))
    if n is not None and n < len(given):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(given))[:n])
    given = given.subset(chosen)
    if not given.good.any():
        raise DataError(f"{given.source} holds no crystals to reconstruct")
    options = {"descriptor": descriptor, "pooling": pooling, "prototypes": prototypes, "rounds": rounds}
    request = {"reconstruct": [key.hex() for key in given.keys], "seed": seed, **options}
    folder = RunFolder(out, request, overwrite) if out is not None else None
    found: dict[int, Atoms] = folder.done() if folder else {}
    todo = [i for i in range(len(given)) if given.good[i] and i not in found]
    started = time.perf_counter()
    # The search ends by itself at the limit; a process that hangs is stopped later.
    with Workers(_one, processes, 2 * time_limit + 60) as workers:
        items = [(given.rows[i].to_atoms(), seed + int(chosen[i]), {**options, "seconds": time_limit}) for i in todo]
        for done, (place, result) in enumerate(workers.map(items), start=1):
            if isinstance(result, Rebuilt):
                atoms = result.atoms
                # The name goes with it, not with its place: rows are drawn.
                atoms.info.update(
                    material_id=given.rows[todo[place]].name,
                    residual=result.rms,
                    solved=bool(result.solved),
                    rounds=result.rounds,
                    seconds=round(result.seconds, 3),
                )
                found[todo[place]] = atoms
                if folder:
                    folder.add([(todo[place], atoms)])
            elif isinstance(result, Failure) and folder is None and not result.timed_out and len(todo) == 1:
                raise DataError(f"{given.rows[todo[place]].name}: {result.reason}")
            if progress:
                progress(done, len(todo))
    wall = time.perf_counter() - started
    if folder:
        folder.finish([found[i] for i in sorted(found)])
    return _measured(given, found, wall, len(todo), options, time_limit, processes)


def _one(item: tuple[Atoms, int, dict[str, Any]]) -> Rebuilt:
    import torch

    torch.set_num_threads(1)  # one process for each core, and no thread pool that a fork would break
    atoms, seed, options = item
    return rebuild_crystal(
        atoms,
        ead=DESCRIPTORS[options["descriptor"]],
        pooling=options["pooling"],
        prototypes=options["prototypes"],
        seed=seed,
        rounds=options["rounds"],
        seconds=options["seconds"],
    )


def _measured(
    given: Any, found: dict[int, Atoms], wall: float, tried: int, options: dict[str, Any], time_limit: float, processes: int | None
) -> Roundtrip:
    good = np.nonzero(given.good)[0].tolist()
    back = [i for i in good if i in found]
    n = len(given)
    rms = np.full(n, np.nan)
    if back:
        rms[back] = match([found[i] for i in back], given.subset(back), polymorphs=False, processes=processes).row_rms
    solved = np.array([i in found and bool(found[i].info["solved"]) for i in range(n)])
    by_prototype = np.array([i in found and bool(found[i].info["solved"]) and found[i].info["rounds"] == 0 for i in range(n)])
    each = [float(found[i].info["seconds"]) for i in back]
    matched = ~np.isnan(rms)
    first = f"prototypes of {options['prototypes']!r}, then " if options["prototypes"] else ""
    return Roundtrip(
        n=n,
        match_rate=float(matched.mean()),
        rmse=float(rms[matched].mean()) if matched.any() else None,
        strict_01=float((rms < 0.1).mean()),
        solved=float(solved.mean()),
        solved_but_wrong=int((solved & ~(rms < 0.1)).sum()),
        seconds_per_structure=wall / tried if tried else 0.0,
        seconds_each=float(np.mean(each)) if each else 0.0,
        from_prototypes=float(by_prototype.mean()),
        failed=n - len(found),
        protocol=f"cell, formula and number of atoms given; descriptor {options['descriptor']!r}, pooling {options['pooling']!r}; {first}"
        f"random starts, at most {options['rounds']} rounds and {time_limit:g} s a structure; {PAPERS}, rms in units of (V/N)^(1/3)",
        crystals=[found.get(i) for i in range(n)],
    )
