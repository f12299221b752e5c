"""Crystal batches: many periodic structures as flat tensors, and the way to and from ``ase.Atoms``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from .errors import CrystalError

#: Atomic number that stands for "element not yet decided" in a partly generated crystal (ASE shows it as X).
MASK = 0


@dataclass(frozen=True)
class CrystalBatch:
    """Many crystals as flat tensors.

    Atoms of crystal 0 come first, then those of crystal 1, and so on. Rows of a cell are lattice vectors:
    ``r = f @ cell``.
    """

    species: Tensor
    """Atomic numbers, shape (n,), int64; 0 is an element not yet decided."""
    frac: Tensor
    """Fractional coordinates, shape (n, 3)."""
    cell: Tensor
    """Lattice vectors as rows, shape (b, 3, 3), Å."""
    num_atoms: Tensor
    """Atoms per crystal, shape (b,), int64."""

    def __len__(self) -> int:
        return len(self.num_atoms)

    @property
    def index(self) -> Tensor:
        """Crystal that each atom belongs to, shape (n,), int64."""
        if len(self) == 1:
            return torch.zeros_like(self.species)
        crystals = torch.arange(len(self), device=self.num_atoms.device)
        return torch.repeat_interleave(crystals, self.num_atoms, output_size=len(self.species))

    @property
    def offsets(self) -> Tensor:
        """First atom of each crystal and, last, the number of atoms, shape (b + 1,)."""
        zero = torch.zeros(1, dtype=torch.int64, device=self.num_atoms.device)
        return torch.cat([zero, self.num_atoms.cumsum(0)])

    @property
    def positions(self) -> Tensor:
        """Cartesian positions, shape (n, 3), Å."""
        return torch.einsum("ni,nij->nj", self.frac, self.cell[self.index])

    @property
    def volume(self) -> Tensor:
        """Cell volumes, shape (b,), Å³."""
        return torch.linalg.det(self.cell).abs()

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> CrystalBatch:
        """The batch on another device, its real numbers in another type."""
        return CrystalBatch(
            self.species.to(device),
            self.frac.to(device=device, dtype=dtype),
            self.cell.to(device=device, dtype=dtype),
            self.num_atoms.to(device),
        )

    def wrapped(self) -> CrystalBatch:
        """The batch with fractional coordinates in [0, 1)."""
        return replace(self, frac=wrap(self.frac))

    def select(self, crystals: Sequence[int] | Tensor) -> CrystalBatch:
        """The batch of some of the crystals, in the order asked for."""
        chosen = torch.as_tensor(crystals, device=self.num_atoms.device)
        counts = self.num_atoms[chosen]
        atoms = ranges(self.offsets[:-1][chosen], counts)
        return CrystalBatch(self.species[atoms], self.frac[atoms], self.cell[chosen], counts)

    @classmethod
    def from_atoms(cls, crystals: Atoms | Sequence[Atoms], dtype: torch.dtype = torch.float64) -> CrystalBatch:
        """Batch of ``ase.Atoms``.

        Raises
        ------
        CrystalError
            A crystal without atoms, not periodic in three directions, or whose cell has no volume.
        """
        if isinstance(crystals, Atoms):
            crystals = [crystals]
        for number, atoms in enumerate(crystals):
            check_atoms(atoms, f"crystal {number}" if len(crystals) > 1 else "the crystal")
        if not crystals:
            return cls(
                torch.zeros(0, dtype=torch.int64),
                torch.zeros(0, 3, dtype=dtype),
                torch.zeros(0, 3, 3, dtype=dtype),
                torch.zeros(0, dtype=torch.int64),
            )
        return cls(
            torch.from_numpy(np.concatenate([a.numbers for a in crystals]).astype(np.int64)),
            torch.from_numpy(np.concatenate([a.get_scaled_positions(wrap=False) for a in crystals])).to(dtype),
            torch.from_numpy(np.stack([a.cell.array for a in crystals])).to(dtype),
            torch.tensor([len(a) for a in crystals]),
        )

    def to_atoms(self) -> list[Atoms]:
        """One periodic ``ase.Atoms`` per crystal."""
        species = self.species.cpu().numpy()
        frac = self.frac.detach().cpu().double().numpy()
        cells = self.cell.detach().cpu().double().numpy()
        bounds = self.offsets.cpu().numpy()
        return [
            Atoms(numbers=species[lo:hi], scaled_positions=frac[lo:hi], cell=cell, pbc=True)
            for lo, hi, cell in zip(bounds[:-1], bounds[1:], cells, strict=True)
        ]


def wrap(frac: Tensor) -> Tensor:
    """Fractional coordinates moved into [0, 1)."""
    wrapped = frac - frac.floor()
    return torch.where(wrapped >= 1.0, torch.zeros_like(wrapped), wrapped)  # -1e-17 wraps to exactly 1


def nearest_image(delta: Tensor) -> Tensor:
    """Differences of fractional coordinates moved into [-1/2, 1/2]."""
    return delta - delta.round()


def ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """Concatenation of ``arange(start, start + count)`` for every pair, shape (sum(counts),)."""
    total = int(counts.sum())
    before = torch.repeat_interleave(counts.cumsum(0) - counts, counts, output_size=total)
    return torch.repeat_interleave(starts, counts, output_size=total) + torch.arange(total, device=counts.device) - before


def check_atoms(atoms: Atoms, what: str = "the crystal") -> None:
    """Raise :class:`CrystalError` unless `atoms` is a crystal: some atoms, three periods, a finite cell of some volume."""
    if len(atoms) == 0:
        raise CrystalError(f"{what} has no atoms")
    if not np.all(atoms.pbc):
        raise CrystalError(f"{what} is not periodic in all three directions (pbc = {atoms.pbc.tolist()}); set atoms.pbc = True")
    cell = atoms.cell.array
    volume, lengths = abs(np.linalg.det(cell)), np.sqrt((cell**2).sum(1))
    if not (np.isfinite(volume) and np.isfinite(atoms.positions).all()):
        raise CrystalError(f"{what} has a position or a lattice vector that is not a finite number")
    if lengths.min() < 1e-3 or volume / lengths.prod() < 1e-6:
        raise CrystalError(f"{what} has a cell without volume (lengths {np.round(lengths, 4).tolist()} Å, {atoms.cell.volume:.3g} Å³)")
