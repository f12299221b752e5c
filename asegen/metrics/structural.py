"""Validity of single crystals: CDVAE's rules, and why a crystal breaks them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from ..datasets.rows import SMALLEST_VOLUME
from .cache import Cache
from .composition import oxidation_valid
from .crystalset import Crystals, crystal_set
from .fingerprinting import Fingerprints, fingerprints
from .pairs import Progress

SHORTEST_DISTANCE = 0.5
"""Å; two atoms closer than this make a crystal invalid (CDVAE)."""


@dataclass(frozen=True)
class Validity:
    """Shares of valid crystals; every crystal given counts, those that could not be read as invalid."""

    n: int
    """Crystals given."""
    structure: float | None
    """No two atoms closer than 0.5 Å and a volume above 0.1 Å³; an atom's own images are not looked at (CDVAE)."""
    composition: float | None
    """Charge neutral with increasing electronegativity in SMACT's `smact14` oxidation states; elements and alloys are valid (CDVAE)."""
    composition_smact: float | None
    """The same with the oxidation states that SMACT 4 takes by default."""
    both: float | None
    """Valid in structure and composition (`smact14`), and with fingerprints: CDVAE's "valid"."""
    fingerprint: float | None
    """Share of crystals with fingerprints; CDVAE takes one without them for invalid."""
    reasons: dict[str, int]
    """How often each reason made a structure or composition invalid, or left a valid structure without fingerprint."""
    protocol: str
    """The rules in one sentence."""
    structure_rows: np.ndarray = field(repr=False)
    """Which crystals have a valid structure, shape (n,), bool."""
    composition_rows: np.ndarray = field(repr=False)
    """Which have a valid composition, shape (n,), bool."""
    fingerprint_rows: np.ndarray = field(repr=False)
    """Which have fingerprints, shape (n,), bool."""

    @property
    def valid_rows(self) -> np.ndarray:
        """Which are valid in structure and composition and have fingerprints, shape (n,), bool."""
        return self.structure_rows & self.composition_rows & self.fingerprint_rows


def validity(
    crystals: Crystals,
    *,
    prints: Fingerprints | None = None,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Validity:
    """Structural and compositional validity as in CDVAE's evaluation.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        What was generated.
    prints : Fingerprints, optional
        If they are known already.
    time_limit : float
        Seconds for the fingerprint of one crystal.
    processes, cache, progress
        See `Comparer`.

    References
    ----------
    Xie et al., ICLR 2022 (CDVAE), section 5.2; Davies et al., Chem 1, 617 (2016) (SMACT).
    """
    given = crystal_set(crystals)
    n = len(given)
    structure, composition, today = np.zeros(n, bool), np.zeros(n, bool), np.zeros(n, bool)
    ours = prints or fingerprints(given, time_limit=time_limit, processes=processes, cache=cache, progress=progress)
    reasons: Counter[str] = Counter()
    for i, (row, atoms) in enumerate(zip(given.rows, given.atoms, strict=True)):
        why = f"no crystal: {row.error}" if atoms is None else structure_fault(atoms)
        structure[i] = not why
        if why:
            reasons[why] += 1
        elif not ours.good[i]:
            reasons[f"no fingerprint: {ours.reasons[i]}"] += 1
        if len(row.numbers):
            check = oxidation_valid(row.numbers)
            composition[i] = check.valid
            today[i] = oxidation_valid(row.numbers, rule="smact").valid
            if not check.valid:
                reasons[f"composition: {check.reason}"] += 1
    return Validity(
        n=n,
        structure=_share(structure),
        composition=_share(composition),
        composition_smact=_share(today),
        both=_share(structure & composition & ours.good),
        fingerprint=_share(ours.good),
        reasons=dict(reasons.most_common()),
        protocol=f"CDVAE's rules: distances between different atoms of at least {SHORTEST_DISTANCE} Å, volume of at least "
        f"{SMALLEST_VOLUME} Å³; "
        f"SMACT's smact14 oxidation states, elements and alloys valid; both: these two and a CrystalNN fingerprint; shares of all {n} "
        "crystals",
        structure_rows=structure,
        composition_rows=composition,
        fingerprint_rows=ours.good,
    )


def structure_fault(atoms: Atoms) -> str:
    """Why a structure is invalid, or an empty text."""
    from pymatgen.core import Lattice

    if abs(atoms.get_volume()) < SMALLEST_VOLUME:
        return f"volume below {SMALLEST_VOLUME} Å³"
    frac = atoms.get_scaled_positions(wrap=False)
    distances = Lattice(atoms.cell.array).get_all_distances(frac, frac)
    np.fill_diagonal(distances, np.inf)
    return f"atoms closer than {SHORTEST_DISTANCE} Å" if distances.min() < SHORTEST_DISTANCE else ""


def _share(mask: np.ndarray) -> float | None:
    return float(mask.mean()) if len(mask) else None
