"""Sets of crystals compared by their properties: density, energy, number of elements, space groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.stats import wasserstein_distance

from ..report import SYMPREC
from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set, reference_set
from .discovery import space_group_distance
from .pairs import Progress
from .remembered import finite_rows, network_features, space_group_numbers
from .structural import Validity, validity


@dataclass(frozen=True)
class Distributions:
    """Earth mover's distances between properties of two sets of crystals (CDVAE)."""

    n: int
    """Crystals that count: valid ones."""
    density: float | None
    """Of the mass density, g/cm³."""
    n_elements: float | None
    """Of the number of elements."""
    energy: float | None
    """Of the energy, eV/atom: from the named column, else predicted for both sets by the packaged network."""
    volume_per_atom: float | None
    """Of the volume per atom, Å³."""
    n_atoms: float | None
    """Of the number of atoms in the cell as given."""
    protocol: str
    """Which crystals count and where energies come from."""
    values: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    """The compared numbers, (generated, reference) by property."""


@dataclass(frozen=True)
class SpaceGroups:
    """Space groups found by spglib."""

    n: int
    """Crystals given."""
    share_p1: float | None
    """Share of P1 among those with a space group."""
    not_found: int
    """Crystals without one: broken, or overlapping atoms."""
    distance: float | None
    """Jensen-Shannon distance (base 2, in [0, 1]) to the reference's distribution; None without a reference."""
    total_variation: float | None
    """Total variation distance to the reference's distribution."""
    protocol: str
    """Tolerances of the search."""
    numbers: np.ndarray = field(repr=False)
    """International number of every crystal, 0 for none, shape (n,)."""
    reference_numbers: np.ndarray | None = field(repr=False)
    """Those of the reference."""


def distributions(
    crystals: Crystals,
    reference: Crystals,
    *,
    energy: str | None = None,
    network: str = "mp20",
    checked: Validity | None = None,
    valid_only: bool = True,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Distributions:
    """Earth mover's distances of density, number of elements, energy, volume per atom and number of atoms.

    Parameters
    ----------
    crystals, reference : path, sequence of Atoms or CrystalSet
        What was generated, and the test set.
    energy : str, optional
        Column (or ``atoms.info`` entry) with energies in eV/atom in both sets. Default: both are predicted by `network`.
    network : str
        Packaged energy network ("mp20", "perov-5", "carbon-24").
    checked : Validity, optional
        If it is known already.
    valid_only : bool
        Count valid generated crystals only, as CDVAE does; all of the reference count.
    time_limit : float
        Seconds for the fingerprint of one crystal, which a valid one must have.
    processes, cache, progress
        See `Comparer`.

    Raises
    ------
    DataError
        No crystal of one of the sets has the named energy.
    ValueError
        The name is that of ASE's energies of whole cells.
    """
    given, true = crystal_set(crystals), reference_set(reference)
    if energy:
        per_atom_columns(energy, given, true)
    mask = given.good.copy()
    if valid_only:
        mask &= (checked or validity(given, time_limit=time_limit, processes=processes, cache=cache, progress=progress)).valid_rows
    ours, theirs = given.subset(np.nonzero(mask)[0]), true.subset(np.nonzero(true.good)[0])

    def of_energy(crystals: CrystalSet) -> np.ndarray:
        return crystals.column(energy) if energy else network_features(crystals, network, cache=cache, progress=progress).energies

    values = {
        "density": (densities(ours), densities(theirs)),
        "n_elements": (_element_counts(ours), _element_counts(theirs)),
        "energy": (of_energy(ours), of_energy(theirs)),
        "volume_per_atom": (_volumes(ours), _volumes(theirs)),
        "n_atoms": tuple(np.array([len(row.numbers) for row in s], dtype=float) for s in (ours, theirs)),
    }
    moved = {name: _moved(finite_rows(x), finite_rows(y)) for name, (x, y) in values.items()}
    source = f"column {energy!r}" if energy else f"packaged network {network!r}"
    return Distributions(
        n=len(ours),
        **moved,
        protocol=f"earth mover's distance; {len(ours)} {'valid ' if valid_only else ''}generated crystals against {len(theirs)} of "
        f"{true.source}; energies: {source}",
        values=values,  # type: ignore[arg-type]
    )


def space_groups(
    crystals: Crystals,
    reference: Crystals | None = None,
    symprec: float = SYMPREC,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> SpaceGroups:
    """Space groups, the share of P1, and the distance to a reference's distribution.

    Parameters
    ----------
    crystals, reference : path, sequence of Atoms or CrystalSet
        What was generated, and the test set.
    symprec : float
        Tolerance of spglib in Å.
    cache, progress
        See `Comparer`.
    """
    given = crystal_set(crystals)
    numbers = space_group_numbers(given, symprec, cache=cache, progress=progress)
    found = numbers[numbers > 0]
    distance = variation = None
    theirs = None if reference is None else space_group_numbers(reference_set(reference), symprec, cache=cache, progress=progress)
    if theirs is not None and len(found) and theirs.any():
        compared = space_group_distance(numbers, theirs)
        distance, variation = compared.jensen_shannon, compared.total_variation
    return SpaceGroups(
        len(given),
        float((found == 1).mean()) if len(found) else None,
        int((numbers == 0).sum()),
        distance,
        variation,
        f"spglib, symprec {symprec:g} Å, angle tolerance chosen by spglib (-1); shares of the {len(found)} crystals with a space group",
        numbers,
        theirs,
    )


def per_atom_columns(energy: str, *sets: CrystalSet) -> None:
    """Refuse a column of energies that a set has not, or that would not be eV/atom.

    Raises
    ------
    DataError, ValueError
        See `distributions`.
    """
    if energy in ("energy", "free_energy"):
        raise ValueError(
            f"{energy!r} is the energy of the whole cell in ASE's files, and energies in eV/atom are compared; name energy_per_atom, which "
            "is there too, or a column with another name"
        )
    for crystals in sets:
        crystals.known_column(energy)


def densities(crystals: CrystalSet) -> np.ndarray:
    """Mass densities in g/cm³ with pymatgen's atomic masses, shape (n,)."""
    masses = _masses()
    return np.array([masses[row.numbers].sum() / abs(np.linalg.det(row.cell)) for row in crystals]) * 1.66053906892


def _element_counts(crystals: CrystalSet) -> np.ndarray:
    return np.array([len(np.unique(row.numbers)) for row in crystals], dtype=float)


def _volumes(crystals: CrystalSet) -> np.ndarray:
    return np.array([abs(np.linalg.det(row.cell)) / len(row.numbers) for row in crystals])


@lru_cache(maxsize=1)
def _masses() -> np.ndarray:
    from pymatgen.core import Element

    return np.array([0.0] + [float(Element.from_Z(z).atomic_mass) for z in range(1, 119)])


def _moved(a: np.ndarray, b: np.ndarray) -> float | None:
    return float(wasserstein_distance(a, b)) if len(a) and len(b) else None
