"""Relaxed crystals as a list of polymorphs: each once, the most credible first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import StabilityError
from ..metrics.cache import Cache
from ..metrics.crystalset import reduced_formula
from ..report import space_group
from .distinct import leaders
from .relax import Relaxed

ORDERS = ("probability", "energy")
SOFTNESS = 0.025
"""Energies enter the probabilities as exp(-E / this), eV/atom: a potential errs too much for its energies to decide alone."""
HOLE = 0.3
"""What lies further below all others of its formula, eV/atom, has more likely fallen into a hole of the potential."""

_STRICT = 0.01  # symprec, Å: relaxed crystals lie exactly on their groups


@dataclass(frozen=True)
class Polymorph:
    """A structure that one or several crystals relaxed to."""

    relaxed: Relaxed = field(repr=False)
    """The lowest in energy of them."""
    members: tuple[int, ...]
    """Positions of all of them in what was given."""
    above_lowest: float
    """Energy above the lowest trusted polymorph of the same formula, eV/atom; below 0 for one that is lower and not trusted."""
    spacegroup: int
    """International number by spglib at symprec 0.01 Å."""
    trusted: bool = True
    """False: not converged, or more than 0.3 eV/atom below all others of its formula. Comes last and is no reference of the others."""
    reason: str | None = None
    """Why it is not trusted."""
    prior: float | None = None
    """Probability before the relaxation: ``info["probability"]`` of the members, summed. None if no crystal of the formula has one."""
    probability: float | None = None
    """Probability among the trusted polymorphs of the formula, energy included. None for those not trusted, and where there is no prior."""

    @property
    def atoms(self) -> Atoms:
        """The crystal, with energy, forces and stress."""
        return self.relaxed.atoms

    @property
    def found(self) -> int:
        """How many crystals relaxed to it."""
        return len(self.members)


def polymorphs(
    relaxed: Sequence[Relaxed],
    *,
    order: str = "probability",
    softness: float = SOFTNESS,
    cache: Cache | None = None,
    processes: int | None = 1,
) -> list[Polymorph]:
    """The distinct structures among relaxed crystals, formula by formula, the most credible first.

    Two are the same if they have the same reduced formula and the same space group at symprec 0.01 Å, their energies differ by less than
    1 meV/atom, and pymatgen's ``StructureMatcher`` (0.2, 0.3, 5°) matches them. So a small distortion that lowers the energy counts as
    a polymorph of its own, as SrTiO3's ferroelectric ones do.

    Not trusted are results that did not converge, and a structure more than 0.3 eV/atom below all others of its formula, unless that was
    to be expected: it is a known crystal, or none of the others was more probable beforehand. Where nothing was known beforehand there
    must be two others at least, since of two alone either may be the odd one.

    Parameters
    ----------
    relaxed : sequence of Relaxed
        Crystals without an energy are left out; those that did not converge are kept, and are never the same as one that did.
    order : str
        ``"probability"``: by log p - E / softness, where p is what ``info["probability"]`` of the crystals gave them before the relaxation
        (:func:`asegen.generate`; the least of the formula for crystals without one) and E the energy. Formulas of which no crystal has
        a probability are ordered by energy. ``"energy"``: by energy alone. Either way the trusted ones come first.
    softness : float, eV/atom
        How far energies have to differ to outweigh a factor of e between the probabilities.
    cache, processes
        See :class:`asegen.metrics.pairs.Comparer`.

    Returns
    -------
    list of Polymorph
        Formulas in the order in which they first occur.

    Raises
    ------
    StabilityError
        Energies of different potentials, an order that there is not, a softness that is no number above 0.
    """
    if order not in ORDERS:
        raise StabilityError(f"order = {order!r} is not one of {', '.join(ORDERS)}")
    if not (np.isfinite(softness) and softness > 0):
        raise StabilityError(f"softness = {softness!r} eV/atom must be a number above 0")
    place = [i for i, one in enumerate(relaxed) if one.energy_per_atom is not None]
    scales = {(relaxed[i].potential, relaxed[i].scale) for i in place}
    if len(scales) > 1:
        names = ", ".join(sorted(name for name, _ in scales))
        raise StabilityError(f"energies of different potentials cannot be ranked together ({names}); relax all crystals with one")
    place.sort(key=lambda i: relaxed[i].energy_per_atom or 0.0)
    formulas = [reduced_formula(relaxed[i].start.numbers) for i in place]
    groups = [space_group(relaxed[i].atoms, _STRICT) for i in place]
    energies = [relaxed[i].energy_per_atom or 0.0 for i in place]
    kinds = [(formula, group, relaxed[i].converged) for formula, group, i in zip(formulas, groups, place, strict=True)]
    first = leaders([relaxed[i].atoms for i in place], energies, kinds, cache=cache, processes=processes)
    found: list[Polymorph] = []
    for formula in dict.fromkeys(reduced_formula(one.start.numbers) for one in relaxed):
        own = [k for k in range(len(place)) if formulas[k] == formula]
        priors = _filled([_prior(relaxed[place[k]].start.info) for k in own])
        merged = []
        for leader in (k for k in own if first[k] == k):
            members = [k for k in own if first[k] == leader]
            merged.append(
                _Merged(
                    relaxed=relaxed[place[leader]],
                    members=tuple(sorted(place[k] for k in members)),
                    energy=energies[leader],
                    spacegroup=groups[leader],
                    prior=None if priors is None else float(sum(priors[own.index(k)] for k in members)),
                    known=any(bool(relaxed[place[k]].start.info.get("known")) for k in members),
                )
            )
        found += _judged(merged, order, softness)
    return found


def log_probabilities(energies: Sequence[float], priors: Sequence[float], softness: float = SOFTNESS) -> np.ndarray:
    """Logarithms of probabilities proportional to p exp(-E / softness), which add up to 1.

    Parameters
    ----------
    energies : sequence of float, eV/atom
        From any zero.
    priors : sequence of float
        Above 0.
    softness : float, eV/atom

    Returns
    -------
    ndarray, one for each
    """
    energy = np.asarray(energies, dtype=float)
    if not len(energy):
        return energy
    score = np.log(np.asarray(priors, dtype=float)) - (energy - energy.min()) / softness
    return np.asarray(score - np.logaddexp.reduce(score))


@dataclass(frozen=True)
class _Merged:
    """A polymorph before its formula's others are looked at."""

    relaxed: Relaxed
    members: tuple[int, ...]
    energy: float
    spacegroup: int
    prior: float | None
    known: bool


def _judged(merged: list[_Merged], order: str, softness: float) -> list[Polymorph]:
    """The polymorphs of one formula in order; they are given by energy."""
    doubts = [_doubt(one, [other for other in merged if other is not one]) for one in merged]
    trusted = [k for k, doubt in enumerate(doubts) if doubt is None]
    lowest = min((merged[k].energy for k in trusted or range(len(merged))), default=0.0)
    score: dict[int, float] = {}
    priors = [merged[k].prior for k in trusted]
    if all(prior is not None for prior in priors):
        logs = log_probabilities([merged[k].energy for k in trusted], [prior or 0.0 for prior in priors], softness)
        score = dict(zip(trusted, logs.tolist(), strict=True))
    by_score = order == "probability"
    ranked = sorted(range(len(merged)), key=lambda k: (doubts[k] is not None, -score.get(k, 0.0) if by_score else 0.0, merged[k].energy))
    return [
        Polymorph(
            relaxed=merged[k].relaxed,
            members=merged[k].members,
            above_lowest=merged[k].energy - lowest,
            spacegroup=merged[k].spacegroup,
            trusted=doubts[k] is None,
            reason=doubts[k],
            prior=merged[k].prior,
            probability=float(np.exp(score[k])) if k in score else None,
        )
        for k in ranked
    ]


def _doubt(one: _Merged, others: list[_Merged]) -> str | None:
    """Why a polymorph is not to be trusted."""
    if not one.relaxed.converged:
        return one.relaxed.reason or "not converged"
    depth = min((other.energy for other in others), default=-np.inf) - one.energy
    if depth <= HOLE or one.known:
        return None
    # where others are merely poor, the best one lies as deep as a hole: what was expected to be lowest may be
    if one.prior is None:
        expected = len(others) < 2
    else:
        expected = all(one.prior >= (other.prior or 0.0) for other in others)
    if expected:
        return None
    return f"{depth:.2f} eV/atom below all others of its formula: a hole of {one.relaxed.potential} rather than a crystal"


def _prior(info: dict[str, Any]) -> float | None:
    """Probability that a crystal was generated with; None for none, or for what cannot be one."""
    try:
        value = float(info["probability"])
    except (KeyError, TypeError, ValueError):
        return None
    return value if np.isfinite(value) and value > 0 else None


def _filled(priors: list[float | None]) -> list[float] | None:
    """Crystals without a probability get the least that there is; None if there is none at all."""
    least = min((prior for prior in priors if prior is not None), default=None)
    return None if least is None else [least if prior is None else prior for prior in priors]
