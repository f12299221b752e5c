"""Crystals from vectors: sampled, decoded, reconstructed; what is no crystal is counted and drawn again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from ..descriptors.structure_vector import Decoded, Rejected
from ..devices import resolve_device
from ..errors import AsegenError
from ..starts import seed_of
from ..systems.structrepdiff import Sampler
from .model import StructRepModel, load_structrep
from .search import Found, Metric, Reconstruct, Search, reconstruct

MOST_DRAWS = 30
"""Vectors drawn for one crystal before it is given up."""
_BATCH = 64


@dataclass
class Draws:
    """What became of the vectors that were drawn."""

    rejected: Counter[str] = field(default_factory=Counter)
    """Vectors that were no crystal, by reason."""
    crystals: int = 0

    def sentence(self) -> str:
        """For people."""
        if not self.rejected:
            return f"{self.crystals} vectors drawn, all of them crystals"
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(self.rejected.items()))
        return f"{self.crystals + sum(self.rejected.values())} vectors drawn for {self.crystals} crystals; no crystal: {reasons}"


def generate_structrep(
    n: int = 1,
    seed: int = 0,
    *,
    checkpoint: str | Path | StructRepModel,
    sampler: Sampler | None = None,
    search: Search | None = None,
    positions: Reconstruct | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_batch: Callable[[list[tuple[int, Atoms]]], None] | None = None,
    done: dict[int, Atoms] | None = None,
    draws: Draws | None = None,
) -> list[Atoms]:
    """Generate crystals with a diffusion of structure vectors.

    Parameters
    ----------
    n : int
        Crystals.
    seed : int
        The same seed gives the same vectors, whatever the batch size (to rounding).
    checkpoint : str, path or StructRepModel
        Packaged name or file.
    sampler : Sampler, optional
        Default: the checkpoint's.
    search : Search, optional
        How long positions are looked for; default: the checkpoint's.
    positions : callable, optional
        Another search for positions: gets decoded vectors and seeds.
    device : str, optional
        Default: a GPU if there is one.
    batch_size : int, optional
        Crystals at once; default 64.
    progress : callable, optional
        Gets (crystals done, all).
    on_batch : callable, optional
        Gets every finished batch, a list of (position, crystal).
    done : dict, optional
        Crystals already there by position (from a run that was killed); they are not generated again.
    draws : Draws, optional
        Filled with what became of the vectors.

    Returns
    -------
    list of ase.Atoms
        Each with ``info["seed"]``, ``info["checkpoint"]``, ``info["checkpoint_hash"]``, ``info["steps"]`` (evaluations of the network),
        ``info["loss"]`` (mean absolute difference from the descriptor that was drawn, in spreads of the training data),
        ``info["hops"]`` (descents), ``info["failed_hops"]`` (those that ended in nothing) and ``info["rejected"]`` (vectors drawn before
        this one that were no crystals).

    Raises
    ------
    CheckpointError
        No such checkpoint, or damaged.
    AsegenError
        The model draws next to nothing that is a crystal.
    """
    if n < 1:
        raise AsegenError(f"n = {n}: ask for at least one crystal")
    if batch_size is not None and batch_size < 1:
        raise AsegenError(f"batch_size = {batch_size} must be at least 1")
    where = resolve_device(device)
    model = load_structrep(checkpoint, where)
    sampler = sampler or model.sampler
    looked = positions or searcher(model, search or model.search, where)
    draws = draws if draws is not None else Draws()
    results: dict[int, Atoms] = dict(done or {})
    missing = [k for k in range(n) if k not in results]
    step = batch_size or _BATCH
    for first in range(0, len(missing), step):
        finished = _batch(model, sampler, looked, missing[first : first + step], seed, draws)
        results.update(finished)
        if on_batch is not None:
            on_batch(finished)
        if progress is not None:
            progress(len(results), n)
    return [results[k] for k in range(n)]


def generate_with_steps(
    n: int,
    seed: int,
    checkpoint: str | Path | StructRepModel,
    steps: int | None,
    device: str | None,
    batch_size: int | None,
    advance: Callable[[int], None],
    on_batch: Callable[[list[tuple[int, Atoms]]], None] | None,
    done: dict[int, Atoms] | None,
) -> list[Atoms]:
    """:func:`generate_structrep` as :func:`asegen.generation.generate` calls it: `steps` evaluations, progress as an increment."""
    model = load_structrep(checkpoint, resolve_device(device))
    sampler = model.sampler if steps is None else Sampler(steps, model.sampler.churn)
    shown = 0

    def progress(count: int, _: int) -> None:
        nonlocal shown
        advance(count - shown)
        shown = count

    return generate_structrep(
        n,
        seed,
        checkpoint=model,
        sampler=sampler,
        device=device,
        batch_size=batch_size,
        progress=progress,
        on_batch=on_batch,
        done=done,
    )


def searcher(model: StructRepModel, search: Search, device: torch.device) -> Reconstruct:
    """The search for positions that belongs to a model."""
    metric = Metric(model.layout.ead, model.diffusion.scale[model.layout.descriptor].to(device))
    return lambda decoded, seeds: reconstruct(decoded, seeds, metric, search, device)


def _batch(
    model: StructRepModel, sampler: Sampler, positions: Reconstruct, wanted: list[int], seed: int, draws: Draws
) -> list[tuple[int, Atoms]]:
    """Crystals of some positions of a run; vectors that are none are drawn again."""
    pending, finished, last = list(wanted), [], ""
    for attempt in range(MOST_DRAWS):
        seeds = [draw_seed(seed, k, attempt) for k in pending]
        results = [model.layout.decode(vector) for vector in model.diffusion.sample(seeds, sampler)]
        good = [i for i, result in enumerate(results) if isinstance(result, Decoded)]
        found = dict(zip(good, positions([results[i] for i in good], [seeds[i] for i in good]), strict=True))  # type: ignore[misc]
        again = []
        for i, (k, result) in enumerate(zip(pending, results, strict=True)):
            place = found.get(i)
            if isinstance(result, Rejected) or place is None:
                reason = result.reason if isinstance(result, Rejected) else "positions"
                last = result.sentence if isinstance(result, Rejected) else "every hop of the search for positions failed"
                draws.rejected[reason] += 1
                again.append(k)
                continue
            draws.crystals += 1
            finished.append((k, crystal_of(model, result, place, seeds[i], attempt, sampler)))
        pending = again
        if not pending:
            return sorted(finished, key=lambda pair: pair[0])
    raise AsegenError(
        f"checkpoint '{model.name}' drew {MOST_DRAWS} vectors for crystal {pending[0]} and none of them is a crystal (the last: {last}); "
        "is it trained?"
    )


def crystal_of(model: StructRepModel, decoded: Decoded, found: Found, seed: int, rejected: int, sampler: Sampler) -> Atoms:
    """A crystal that says where it comes from."""
    atoms = Atoms(numbers=decoded.numbers, scaled_positions=found.frac, cell=decoded.cell, pbc=True)
    atoms.info.update(
        seed=seed,
        checkpoint=model.name,
        checkpoint_hash=model.hash,
        steps=min(sampler.evaluations, model.diffusion.schedule.steps),
        loss=found.loss,
        hops=found.hops,
        failed_hops=found.failed,
        rejected=rejected,
    )
    return atoms


def draw_seed(seed: int, position: int, attempt: int) -> int:
    """Seed of the vector drawn in an attempt at the crystal of a position; the first one is that of every other system."""
    first = seed_of(seed, position)
    return first if attempt == 0 else int(np.random.SeedSequence([first, attempt]).generate_state(1)[0])


__all__ = ["MOST_DRAWS", "Draws", "draw_seed", "generate_structrep", "generate_with_steps", "searcher"]
