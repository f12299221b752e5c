"""Sets of crystals compared by their fingerprints: coverage, diversity, Fréchet distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from .cache import Cache
from .crystalset import Crystals, crystal_set, reference_set
from .fingerprinting import Fingerprints, fingerprints
from .pairs import Progress
from .remembered import finite_rows, network_features
from .structural import Validity, validity

BLOCK = 512
"""Rows of a distance matrix held at a time; bounds the memory."""

COVERAGE_CUTOFFS = {"mp20": (0.4, 10.0), "perov-5": (0.2, 4.0), "carbon-24": (0.2, 4.0)}
"""Largest distances of structure and composition fingerprints that count as covered, by data set (CDVAE's evaluation script)."""


@dataclass(frozen=True)
class Coverage:
    """How much of a reference set is covered, and how much of the generated set lies in it (Xu et al. 2021; CDVAE)."""

    n: int
    """Generated crystals."""
    recall: float | None
    """COV-R: share of reference crystals with a generated one within both cut-offs."""
    precision: float | None
    """COV-P: share of generated crystals with a reference one within both cut-offs; those without a fingerprint count as outside."""
    structure_recall: float | None
    """AMSD-R: mean distance of the structure fingerprint from a reference crystal to the nearest generated one."""
    structure_precision: float | None
    """AMSD-P: mean distance of the structure fingerprint from a generated crystal to the nearest reference one."""
    composition_recall: float | None
    """AMCD-R: the same for the composition fingerprint."""
    composition_precision: float | None
    """AMCD-P."""
    without_fingerprint: int
    """Generated crystals without a fingerprint."""
    reference_without_fingerprint: int
    """Reference crystals without a fingerprint; they are left out."""
    protocol: str
    """Cut-offs and fingerprints."""


@dataclass(frozen=True)
class Diversity:
    """Mean distance between the fingerprints of two generated crystals (CDVAE)."""

    n: int
    """Crystals that count: valid ones with fingerprints."""
    structure: float | None
    """Of the CrystalNN fingerprints; None with fewer than two crystals."""
    composition: float | None
    """Of the standardised Magpie fingerprints."""
    protocol: str
    """Which crystals count."""


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance (squared) between Gaussians fitted to the features of two sets of crystals."""

    n: int
    """Generated crystals with a CrystalNN fingerprint."""
    reference: int
    """Reference crystals with one."""
    crystalnn: float | None
    """On CrystalNN fingerprints; None with fewer than two crystals in a set."""
    learned: float | None
    """On the activations of the packaged energy network."""
    n_learned: int
    """Generated crystals with activations."""
    reference_learned: int
    """Reference crystals with activations."""
    protocol: str
    """Features, sets and bias."""


def coverage(
    crystals: Crystals,
    reference: Crystals,
    cutoffs: str | tuple[float, float] = "mp20",
    *,
    prints: Fingerprints | None = None,
    reference_prints: Fingerprints | None = None,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Coverage:
    """COV-R and COV-P with CDVAE's fingerprints.

    Parameters
    ----------
    crystals, reference : path, sequence of Atoms or CrystalSet
        What was generated, and the test set.
    cutoffs : str or (float, float)
        A data set ("mp20", "perov-5", "carbon-24") or the two cut-offs, of structure and composition.
    prints, reference_prints : Fingerprints, optional
        If they are known already.
    time_limit : float
        Seconds for the fingerprint of one crystal.
    processes, cache, progress
        See `Comparer`.
    """
    given, true = crystal_set(crystals), reference_set(reference)
    near, alike = cutoffs_of(cutoffs)
    options: dict[str, Any] = {"time_limit": time_limit, "processes": processes, "cache": cache, "progress": progress}
    ours, theirs = prints or fingerprints(given, **options), reference_prints or fingerprints(true, **options)
    a, b = ours.good, theirs.good
    recall = precision = None
    amsd_recall = amsd_precision = amcd_recall = amcd_precision = None
    if a.any() and b.any():
        s_p, s_r = _nearest(ours.structure[a], theirs.structure[b])
        c_p, c_r = _nearest(ours.composition[a], theirs.composition[b])
        recall = float(np.mean((s_r <= near) & (c_r <= alike)))
        precision = float(np.sum((s_p <= near) & (c_p <= alike)) / len(given))
        amsd_recall, amsd_precision = float(s_r.mean()), float(s_p.mean())
        amcd_recall, amcd_precision = float(c_r.mean()), float(c_p.mean())
    elif b.any() and len(given):
        recall = precision = 0.0
    return Coverage(
        n=len(given),
        recall=recall,
        precision=precision,
        structure_recall=amsd_recall,
        structure_precision=amsd_precision,
        composition_recall=amcd_recall,
        composition_precision=amcd_precision,
        without_fingerprint=int((~a).sum()),
        reference_without_fingerprint=int((~b).sum()),
        protocol=f"CrystalNN (ops, mean over sites) within {near:g} and standardised Magpie fingerprints within {alike:g}, nearest ones "
        f"taken separately as in CDVAE; {len(given)} generated against {int(b.sum())} of {true.source}, no validity filter",
    )


def cutoffs_of(cutoffs: str | tuple[float, float]) -> tuple[float, float]:
    """The two cut-offs of a data set's name.

    Raises
    ------
    ValueError
        No such data set.
    """
    if not isinstance(cutoffs, str):
        return float(cutoffs[0]), float(cutoffs[1])
    if cutoffs not in COVERAGE_CUTOFFS:
        raise ValueError(f"no coverage cut-offs are known for {cutoffs!r}; known: {', '.join(COVERAGE_CUTOFFS)}, or give two numbers")
    return COVERAGE_CUTOFFS[cutoffs]


def diversity(
    crystals: Crystals,
    *,
    prints: Fingerprints | None = None,
    checked: Validity | None = None,
    valid_only: bool = True,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Diversity:
    """Mean pairwise distance of fingerprints.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        What was generated.
    prints, checked : Fingerprints, Validity, optional
        If they are known already.
    valid_only : bool
        Count valid crystals only, as CDVAE does.
    time_limit : float
        Seconds for the fingerprint of one crystal.
    processes, cache, progress
        See `Comparer`.
    """
    given = crystal_set(crystals)
    ours = prints or fingerprints(given, time_limit=time_limit, processes=processes, cache=cache, progress=progress)
    mask = ours.good & ((checked or validity(given, prints=ours)).valid_rows if valid_only else True)
    return Diversity(
        int(mask.sum()),
        _mean_distance(ours.structure[mask]),
        _mean_distance(ours.composition[mask]),
        f"mean distance over all pairs of {int(mask.sum())} {'valid ' if valid_only else ''}crystals with fingerprints",
    )


def frechet(
    crystals: Crystals,
    reference: Crystals,
    *,
    network: str = "mp20",
    prints: Fingerprints | None = None,
    reference_prints: Fingerprints | None = None,
    time_limit: float = 60.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Frechet:
    """Fréchet distances on CrystalNN fingerprints and on a network's activations.

    Parameters
    ----------
    crystals, reference : path, sequence of Atoms or CrystalSet
        What was generated, and the test set.
    network : str
        Packaged energy network ("mp20", "perov-5", "carbon-24").
    prints, reference_prints : Fingerprints, optional
        If they are known already.
    time_limit : float
        Seconds for the fingerprint of one crystal.
    processes, cache, progress
        See `Comparer`.

    References
    ----------
    Heusel et al., NIPS 2017; the score model with adaptive cells, section 5.2.
    """
    given, true = crystal_set(crystals), reference_set(reference)
    options: dict[str, Any] = {"time_limit": time_limit, "processes": processes, "cache": cache, "progress": progress}
    ours, theirs = prints or fingerprints(given, **options), reference_prints or fingerprints(true, **options)
    a, b = ours.structure[np.isfinite(ours.structure).all(axis=1)], theirs.structure[np.isfinite(theirs.structure).all(axis=1)]
    features = [network_features(s, network, cache=cache, progress=progress) for s in (given, true)]
    c, d = (finite_rows(f.activations) for f in features)
    unseen = sum(map(bool, features[0].unseen))
    return Frechet(
        n=len(a),
        reference=len(b),
        crystalnn=frechet_distance(a, b),
        learned=frechet_distance(c, d),
        n_learned=len(c),
        reference_learned=len(d),
        protocol=f"squared Fréchet distance of Gaussians; {len(a)} generated and {len(b)} reference crystals with fingerprints, no "
        f"validity filter; learned: hidden layer of the packaged CGCNN {network!r} ({c.shape[-1]} numbers), {len(c)} and {len(d)} "
        f"crystals, {unseen} generated ones with elements unknown to it; biased upwards for small sets",
    )


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float | None:
    """Squared Fréchet distance between Gaussians with the means and covariances of two samples.

    Parameters
    ----------
    a, b : ndarray, shapes (n, d) and (m, d)
        Features. With fewer than two samples in either the distance is not defined (None).

    Notes
    -----
    |μa − μb|² + tr(Σa + Σb − 2 (Σa^½ Σb Σa^½)^½); the symmetric form needs only eigenvalues of symmetric matrices.
    """
    if len(a) < 2 or len(b) < 2:
        return None
    difference = a.mean(axis=0) - b.mean(axis=0)
    first, second = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(max(0.0, difference @ difference + np.trace(first) + np.trace(second) - 2 * overlap))


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every row of a to the nearest of b, and of every row of b to the nearest of a."""
    of_a, of_b = np.empty(len(a)), np.full(len(b), np.inf)
    for start in range(0, len(a), BLOCK):
        distances = cdist(a[start : start + BLOCK], b)
        of_a[start : start + BLOCK] = distances.min(axis=1)
        of_b = np.minimum(of_b, distances.min(axis=0))
    return of_a, of_b


def _mean_distance(a: np.ndarray) -> float | None:
    if len(a) < 2:
        return None
    total = sum(cdist(a[start : start + BLOCK], a).sum() for start in range(0, len(a), BLOCK))
    return float(total / (len(a) * (len(a) - 1)))
