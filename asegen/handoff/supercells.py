"""How often a cell is repeated for phonons."""

from __future__ import annotations

import numpy as np

from ..errors import HandoffError


def supercell_for(cell: np.ndarray, min_length: float = 10.0) -> tuple[int, int, int]:
    """The smallest multiples of the cell's vectors that reach a length, even where they are more than one.

    Forces die out over some Å, so a displaced atom must not meet its own image. Odd multiples miss the middle of the zone
    boundary, where most soft modes sit; an even one has it among its exact wave vectors.

    Parameters
    ----------
    cell : array, shape (3, 3), Å
        Lattice vectors as rows.
    min_length : float, Å
        Every vector of the supercell is at least so long.

    Raises
    ------
    HandoffError
        A vector has no length, or `min_length` is not a number.
    """
    lengths = np.linalg.norm(np.asarray(cell, dtype=float), axis=1)
    if not np.isfinite(min_length) or not np.isfinite(lengths).all() or lengths.min() < 1e-3:
        raise HandoffError(f"no supercell of at least {min_length} Å can be made of vectors of {np.round(lengths, 4).tolist()} Å")
    # a vector of 9.9999999 Å is 10 Å
    counts = np.maximum(1, np.ceil(min_length / lengths - 1e-6)).astype(int)
    return tuple(int(n + n % 2) if n > 1 else 1 for n in counts)  # type: ignore[return-value]
