"""The batched driver: the step rules on many crystals at once, equal sizes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from ase import Atoms

from ..checkpoint import Checkpoint
from ..crystals import MASK, CrystalBatch
from ..devices import free_memory, inference
from ..prior import reference_volume
from ..symmetry.symmetry import Symmetry
from .rules import State, StepScores, Walk, correct, draw_noise, noise_of_step, predict
from .symmetric import Projection, blur, hold

_LARGEST_BATCH = 256


def sample(
    checkpoint: Checkpoint,
    starts: Sequence[Atoms],
    walk: Walk,
    *,
    symmetry: Sequence[Symmetry] | None = None,
    device: torch.device,
    batch_size: int | None = None,
    precision: str = "float32",
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[list[tuple[int, Atoms]]]:
    """Walk many starts down the noise levels; yields finished batches as they come.

    Parameters
    ----------
    checkpoint : Checkpoint
        On `device`.
    starts : sequence of ase.Atoms
        Each with ``info["seed"]`` (and ``info["reference_volume"]`` if elements are hidden).
    walk : Walk
    symmetry : sequence of Symmetry, optional
        Of each start, which has it exactly; kept at every step.
    device : torch.device
    batch_size : int, optional
        Default: from the memory that is free.
    precision : str
        ``float32`` or ``bfloat16`` (:func:`asegen.devices.inference`).
    on_step : callable, optional
        Called with (crystals in the batch, 1) after every step.

    Yields
    ------
    list of (position in `starts`, ase.Atoms)
    """
    sizes = np.array([len(atoms) for atoms in starts])
    for size in np.unique(sizes):
        members = np.nonzero(sizes == size)[0]
        step = batch_size or fitting_batch(int(size), device)
        for first in range(0, len(members), step):
            chosen = members[first : first + step]
            kept = None if symmetry is None else Symmetry.cat([symmetry[i] for i in chosen]).to(device)
            finished = _walk_down(checkpoint, [starts[i] for i in chosen], walk, kept, device, precision, on_step)
            yield list(zip(chosen.tolist(), finished, strict=True))


def fitting_batch(num_atoms: int, device: torch.device) -> int:
    """Crystals of that many atoms that fit into half the free memory, at most 256.

    An estimate on the safe side: 25 vectors of 72 numbers per atom pair and 40 kB per atom at once.
    """
    per_crystal = num_atoms**2 * 72 * 4 * 25 + num_atoms * 40_000
    return int(max(1, min(_LARGEST_BATCH, free_memory(device) // 2 // per_crystal)))


def _walk_down(
    checkpoint: Checkpoint,
    starts: list[Atoms],
    walk: Walk,
    symmetry: Symmetry | None,
    device: torch.device,
    precision: str,
    on_step: Callable[[int, int], None] | None,
) -> list[Atoms]:
    system = checkpoint.system
    batch = CrystalBatch.from_atoms(starts).to(device)
    volume = reference_volume(batch.species, batch.index, len(batch))
    for number, atoms in enumerate(starts):
        if "reference_volume" in atoms.info:
            volume[number] = float(atoms.info["reference_volume"])
    state = State.of(batch, volume)
    times = walk.times()
    noise = [draw_noise(a.info["seed"], len(a), walk.rows) for a in starts]
    projection = None if symmetry is None else Projection.of(symmetry)
    # hidden elements are decided atom by atom, so that the atoms of an orbit may differ
    shared = None if bool((batch.species == MASK).any()) else symmetry
    if walk.begin < 1:
        state = hold(blur(state, noise_of_step([rows[-1] for rows in noise], device), system.schedule, times[0]), state, projection)

    def scores(state: State, time: float) -> StepScores:
        times = torch.full((len(starts),), time, dtype=torch.float64, device=device)
        with inference(device, precision):
            found = system.scores_at(state.batch(), state.y, times, state.volume, symmetry=shared)
        return StepScores(found.position, found.lattice, found.elements)

    for k in range(walk.steps):
        row = k * (1 + walk.correctors)
        fresh = noise_of_step([rows[row] for rows in noise], device)
        state = hold(predict(state, scores(state, times[k]), fresh, system.schedule, times[k], times[k + 1], walk), state, projection)
        for number in range(1, walk.correctors + 1 if times[k + 1] > 0 else 1):
            fresh = noise_of_step([rows[row + number] for rows in noise], device)
            state = hold(correct(state, scores(state, times[k + 1]), fresh, system.schedule, times[k + 1], walk.snr), state, projection)
        if on_step is not None:
            on_step(len(starts), 1)
    finished = state.batch().to_atoms()
    for atoms, start in zip(finished, starts, strict=True):
        atoms.info.update(start.info)
    return finished
