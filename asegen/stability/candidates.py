"""Energies of the crystals to be judged: given with them, of a relaxation, or computed here."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Union

import numpy as np
from ase import Atoms

from ..calculators.potentials import Potential, evaluate
from ..errors import AsegenError, CrystalError, StabilityError
from ..metrics.crystalset import CrystalSet, crystal_set
from ..metrics.workers import Failure, Workers, cores
from .entries import Reference
from .relax import Relaxed, relax_each
from .sanity import why_not_relax

Given = Union[str, Path, CrystalSet, Atoms, Relaxed, Sequence[Union[Atoms, Relaxed]]]
"""What can be judged: a file or folder, crystals, relaxations, one or many."""
Energies = Union[None, str, Sequence[float], np.ndarray]
"""Energies of whole cells, eV: numbers, the name of an entry of ``atoms.info``, or ``"calculator"``."""
Progress = Callable[[int, int], None]
_SINGLE_POINT = 300.0  # seconds for one call
_FEW = 8  # crystals that are always evaluated in this process, and tell how long one takes
_WORTH = 30.0  # seconds of work that are worth the start of further processes


@dataclass(frozen=True)
class Candidate:
    """A crystal to be judged."""

    name: str
    """Material id, or where it stands."""
    atoms: Atoms | None = field(default=None, repr=False)
    """The crystal that has the energy; None for a row that is none."""
    energy: float | None = None
    """eV of the cell."""
    scale: str = ""
    """Its energy scale."""
    how: str = ""
    """Where the energy comes from, for protocols."""
    potential: str | None = None
    """Name of the potential that gave the energy; None: given, from wherever."""
    relaxed: Relaxed | None = field(default=None, repr=False)
    """Its relaxation, if there was one."""
    warning: str = ""
    """What to keep in mind of the energy."""
    reason: str = ""
    """Why there is no energy."""


def candidates(
    crystals: Given,
    model: Potential | None,
    *,
    relax: bool = False,
    energies: Energies = None,
    scale: str | None = None,
    processes: int | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> list[Candidate]:
    """Crystals with their energies, in order; one without an energy has a `reason`.

    Parameters
    ----------
    crystals : path, Atoms, Relaxed, CrystalSet, or sequence of Atoms and Relaxed
        A `Relaxed` brings its energy along.
    model : Potential or None
        For those without; None: there are none.
    relax : bool
        Relax them first; else the energy is that of the crystal as given.
    energies : str, array or None
        Energies of the cells (eV) that are known already, see `Energies`; then `scale` must be given.
    scale : str, optional
        Of `energies`.
    processes : int, optional
        Default: one per core.
    progress : callable, optional
        Gets (crystals finished, all).
    **settings
        Of the relaxation, see :class:`asegen.stability.relax.Settings`.

    Raises
    ------
    DataError
        The file cannot be read.
    StabilityError
        Energies without a scale, or of another number than the crystals; energies of different potentials; no crystals at all.
    """
    found = _listed(crystals)
    if energies is not None:
        if not scale:
            raise StabilityError("energies were given without their scale; name it: 'PBE(+U)', 'MP2020', or the calculator's own")
        found = _with_energies(found, energies, scale)
    todo = [k for k, one in enumerate(found) if not one.reason and one.energy is None]
    _refuse_several([one.potential for one in found if one.energy is not None] + ([model.name] if todo and model is not None else []))
    if not todo:
        return found
    if model is None:
        raise StabilityError(f"{found[todo[0]].name} has no energy, and no potential was given to compute it with")
    structures = [found[k].atoms for k in todo]
    done = 0
    for place, answer in _evaluated([a for a in structures if a is not None], model, relax, processes, settings):
        done += 1
        found[todo[place]] = replace(found[todo[place]], **answer)
        if progress is not None:
            progress(done, len(todo))
    return found


def _listed(crystals: Given) -> list[Candidate]:
    if isinstance(crystals, (Atoms, Relaxed)):
        crystals = [crystals]
    if isinstance(crystals, (str, Path, CrystalSet)):
        given = crystal_set(crystals)
        return [Candidate(row.name, reason=row.error) if row.error else Candidate(row.name, row.to_atoms()) for row in given.rows]
    if not isinstance(crystals, Iterable):
        raise StabilityError(
            f"crystals cannot be of type {type(crystals).__name__}: give a file, ase.Atoms, a relaxation, or a list of these"
        )
    found = []
    for number, item in enumerate(crystals, start=1):
        if isinstance(item, Relaxed):
            name = str(item.start.info.get("material_id", f"#{number}"))
            found.append(replace(Candidate(name, item.start), **_of_relaxed(item)))
        elif isinstance(item, Atoms):
            found.append(Candidate(str(item.info.get("material_id", f"#{number}")), item))
        else:
            raise StabilityError(f"crystal {number} is a {type(item).__name__}; ase.Atoms or a relaxation is needed")
    return found


def _of_relaxed(result: Relaxed) -> dict[str, Any]:
    if result.energy is None:
        return {"relaxed": result, "reason": result.reason or "its relaxation gave no energy"}
    warning = "" if result.converged else f"the relaxation is not finished ({result.reason}): the energy is an upper bound"
    return {
        "atoms": result.atoms,
        "energy": float(result.energy),
        "scale": result.scale,
        "how": f"relaxed with {result.potential}",
        "potential": result.potential,
        "relaxed": result,
        "warning": warning,
    }


def _with_energies(found: list[Candidate], energies: Energies, scale: str) -> list[Candidate]:
    if isinstance(energies, str):
        _refuse_unknown(found, energies)
        values = [_energy_beside(one, energies) for one in found]
        how = "energy of its calculator" if energies == "calculator" else f"energy given as {energies!r}"
    else:
        values = [float(value) for value in np.asarray(energies, dtype=float).ravel()]
        how = "energy given"
        if len(values) != len(found):
            raise StabilityError(f"{len(values)} energies were given for {len(found)} crystals")
    result = []
    for one, value in zip(found, values, strict=True):
        if one.reason:
            result.append(one)
        elif not np.isfinite(value):
            result.append(replace(one, reason=f"it has no {how}"))
        else:
            result.append(replace(one, energy=value, scale=scale, how=how, potential=None, reason=_no_crystal(one.atoms)))
    return result


def _refuse_several(potentials: Sequence[str | None]) -> None:
    """Raise where energies of two potentials would stand side by side: their offsets are as large as what is looked for."""
    names = list(dict.fromkeys(name for name in potentials if name is not None))
    if len(names) > 1:
        raise StabilityError(
            f"energies of {names[0]} and of {names[1]} cannot be compared: judge the crystals of each potential by themselves"
        )


def refuse_other(one: Candidate, reference: Reference) -> None:
    """Raise where a crystal and the phases that it competes with have energies of two potentials.

    Raises
    ------
    StabilityError
        The sentence names both.
    """
    theirs = potential_behind(reference)
    if one.potential is not None and theirs is not None and one.potential != theirs:
        raise StabilityError(
            f"the energy of {one.name} was computed with {one.potential}, the competing phases with {theirs}; energies of different "
            f"potentials cannot be compared: use {one.potential} for both, or a reference of DFT energies"
        )


def potential_behind(reference: Reference) -> str | None:
    """Name of the potential that computed the entries of a reference; None: DFT, or not known."""
    found = getattr(reference, "potential", None)
    return found.name if isinstance(found, Potential) else found


def _refuse_unknown(found: Sequence[Candidate], name: str) -> None:
    """Raise where no crystal has an entry of this name."""
    crystals = [one.atoms for one in found if one.atoms is not None]
    if not crystals or any(atoms.calc is not None if name == "calculator" else name in atoms.info for atoms in crystals):
        return
    numbers = {key for atoms in crystals for key, value in atoms.info.items() if isinstance(value, (int, float, np.number))}
    known = sorted(map(str, numbers)) + (["calculator"] if any(atoms.calc is not None for atoms in crystals) else [])
    what = f"numbers there are: {', '.join(known)}" if known else "there are no numbers beside the crystals"
    raise StabilityError(f"no crystal has an energy {name!r}; {what}")


def _energy_beside(one: Candidate, name: str) -> float:
    if one.atoms is None:
        return float("nan")
    try:
        if name != "calculator":
            return float(one.atoms.info.get(name, "nan"))
        return float(one.atoms.get_potential_energy()) if one.atoms.calc is not None else float("nan")
    except Exception:  # whatever a foreign calculator raises: it has no energy
        return float("nan")


def _no_crystal(atoms: Atoms | None) -> str:
    return "" if atoms is None else why_not_relax(atoms, None, False) or ""


def _evaluated(
    structures: list[Atoms], model: Potential, relax: bool, processes: int | None, settings: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(index, what is now known) as soon as it is known."""
    if relax:
        for place, result in relax_each(structures, model, processes=processes_for(model, processes), **{"path": False, **settings}):
            yield place, _of_relaxed(result)
        return
    if settings:
        raise StabilityError(f"{', '.join(sorted(settings))} are settings of a relaxation, but none was asked for")
    for place, value in single_points(structures, model, processes):
        if isinstance(value, str):
            yield place, {"reason": value}
        else:
            yield place, {"energy": value, "scale": model.scale, "how": f"{model.name}, not relaxed", "potential": model.name}


def single_points(structures: Sequence[Atoms], model: Potential, processes: int | None = None) -> Iterator[tuple[int, float | str]]:
    """(index, energy in eV of the cell, or the reason why there is none) for each crystal, as soon as it is known.

    Parameters
    ----------
    structures : sequence of Atoms
    model : Potential
    processes : int, optional
        Default: one per core. What is done within half a minute, and calculators of the running script, stay in this process.
    """
    processes = processes_for(model, processes)
    begin = time.monotonic()
    alone = len(structures)
    for place, atoms in enumerate(structures):
        yield place, _single_point(model, atoms)
        done = place + 1
        # the first crystal of all pays for loading the weights
        begin = time.monotonic() if done == 1 else begin
        left = (time.monotonic() - begin) / max(1, done - 1) * (len(structures) - done)
        if processes > 1 and done >= _FEW and left > _WORTH and processes_for(model, processes) > 1:
            alone = done
            break
    bare = []
    for atoms in structures[alone:]:
        bare.append(atoms.copy())
        bare[-1].calc = None
    if not bare:
        return
    with Workers(partial(_single_point, model), processes, _SINGLE_POINT, partial(_prepare, model), fresh=True) as workers:
        for place, value in workers.map(bare):
            yield alone + place, value.reason if isinstance(value, Failure) else value


def processes_for(model: Potential, processes: int | None) -> int:
    """How many processes a potential can use: one on a GPU, and for calculators that cannot be sent to another process, as some
    cannot once they were used; else as many as asked for, by default one per core."""
    if model.device != "cpu":
        return 1
    if model.given is not None:
        if type(model.given).__module__ == "__main__":
            return 1
        try:
            pickle.dumps(model)
        except Exception:  # whatever a foreign calculator raises
            return 1
    return processes or cores()


def _single_point(model: Potential, atoms: Atoms) -> float | str:
    try:
        if reason := model.refusal(atoms) or why_not_relax(atoms, model.reach, False):
            return reason
        bare = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        bare.calc = model.calculator()
        return evaluate(bare).energy
    except (AsegenError, CrystalError) as error:
        return str(error)


def _prepare(model: Potential) -> None:
    import torch

    torch.set_num_threads(1)
    model.calculator()


__all__ = ["Candidate", "Energies", "Given", "Progress", "candidates", "potential_behind", "processes_for", "refuse_other", "single_points"]
