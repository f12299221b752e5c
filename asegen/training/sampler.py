"""Batches for training: many sizes in a batch, few sizes in a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


class SizeGroupedBatches:
    """Batches of crystal indices made of groups of equal size.

    An epoch visits every crystal once. Crystals of equal size are cut into groups of ``batch_size / groups``; a
    batch is `groups` such groups drawn at random, so the network multiplies large matrices and the gradient still
    sees several sizes. The order depends on the seed and the epoch alone.

    Parameters
    ----------
    num_atoms : ndarray, shape (b,)
    batch_size : int
    groups : int
    seed : int
    rank, world : int
        Which share of each epoch's batches is ours when several processes train together.
    done : callable, optional
        Number of batches already trained on when an iteration begins. It decides epoch and place, so that a resumed run
        goes on with the very batch at which it was stopped; default: every iteration is epoch 0.
    """

    def __init__(
        self,
        num_atoms: np.ndarray,
        batch_size: int,
        groups: int = 4,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        done: Callable[[], int] | None = None,
    ) -> None:
        self.num_atoms = np.asarray(num_atoms)
        self.group_size = max(1, batch_size // groups)
        self.groups = groups
        self.seed = seed
        self.rank, self.world = rank, world
        self.done = done or (lambda: 0)
        self._length = len(self._batches(0))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[int]]:
        epoch, start = divmod(self.done(), self._length)
        yield from self._batches(epoch)[start:]

    def _batches(self, epoch: int) -> list[list[int]]:
        random = np.random.default_rng([self.seed, epoch])
        groups: list[np.ndarray] = []
        leftovers: list[np.ndarray] = []
        for size in np.unique(self.num_atoms):
            members = random.permutation(np.nonzero(self.num_atoms == size)[0])
            full = len(members) // self.group_size * self.group_size
            groups += list(members[:full].reshape(-1, self.group_size))
            leftovers.append(members[full:])
        rest = np.concatenate(leftovers)  # still sorted by size: a group holds two or three sizes
        groups += [rest[i : i + self.group_size] for i in range(0, len(rest), self.group_size)]
        order = random.permutation(len(groups))
        batches = [np.concatenate([groups[g] for g in order[i : i + self.groups]]).tolist() for i in range(0, len(order), self.groups)]
        # every process gets the same number of batches, or the others would wait for ever
        return batches[self.rank : len(batches) // self.world * self.world : self.world] if self.world > 1 else batches
