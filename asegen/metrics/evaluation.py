"""Every metric that the given files allow, in one go; what cannot be computed says why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import __version__
from ..errors import DataError
from .cache import Cache
from .crystalset import Crystals, CrystalSet, crystal_set, reference_set
from .duplicates import novelty, uniqueness
from .fingerprinting import Fingerprints, fingerprints
from .matching import match, rows_of
from .pairs import Progress
from .properties import distributions, per_atom_columns, space_groups
from .reasons import missing_numbers
from .sets import coverage, cutoffs_of, diversity, frechet
from .stable import sun
from .structural import validity
from .workers import checked_limit

TASKS = ("validity", "coverage", "distributions", "diversity", "frechet", "uniqueness", "novelty", "space_groups", "sun", "match")
"""All tasks, in the order in which they are reported."""
_NEEDS_REFERENCE = ("coverage", "distributions", "frechet", "match")
_NEEDS_TRAIN = ("novelty", "sun")


@dataclass(frozen=True)
class Evaluation:
    """Results by family, and why some are missing."""

    n: int
    """Crystals given; of several evaluations of the same crystals, those of the first."""
    unreadable: int
    """Those that are no crystals."""
    results: dict[str, Any]
    """Frozen dataclass of each task that was computed."""
    missing: dict[str, str]
    """Why a task, or one number of it ("task.number"), was not computed."""
    settings: dict[str, Any]
    """Files, versions and options."""
    crystals: CrystalSet = field(repr=False)
    """What was evaluated; of several evaluations, the first."""

    def numbers(self) -> dict[str, float | int | None]:
        """Headline numbers as one flat mapping, "task.number" to value."""
        flat: dict[str, float | int | None] = {"n": self.n}
        for task, result in self.results.items():
            if task == "uniqueness" or task == "novelty":
                flat[task] = result.share
                flat[f"{task}.share_of_all"] = result.share_of_all
                continue
            for name, value in plain(result).items():
                if name != "n" and (value is None or isinstance(value, (int, float))):
                    flat[f"{task}.{name}"] = value
        return flat

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON types: every number flat ("task.number") for tables, and again by family with its details."""
        numbers = self.numbers()
        families = {task: plain(result) for task, result in self.results.items()}
        return {
            **numbers,
            "unreadable": self.unreadable,
            "missing": self.missing,
            "protocols": {task: family.pop("protocol") for task, family in families.items()},
            # Where the family's one number has its name already (uniqueness, novelty), the rest is beside it.
            **{f"{task}_details" if task in numbers else task: family for task, family in families.items()},
            "settings": self.settings,
        }


def evaluate(
    crystals: Crystals,
    reference: Crystals | None = None,
    train: Crystals | None = None,
    tasks: Sequence[str] | None = None,
    *,
    data_set: str = "mp20",
    cutoffs: tuple[float, float] | None = None,
    energy: str | None = None,
    e_above_hull: str | None = None,
    best_of: int | None = None,
    samples: int | None = None,
    seed: int = 0,
    time_limit: float = 20.0,
    processes: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a set of crystals.

    Parameters
    ----------
    crystals : path, sequence of Atoms or CrystalSet
        What was generated. Of a file with several evaluations of the same crystals all count for "match", and those of the first
        for everything else.
    reference : path, sequence of Atoms or CrystalSet, optional
        Test set; needed for coverage, distributions, Fréchet distance, match. Of a file that keeps true structures beside generated
        ones, the true ones.
    train : path, sequence of Atoms or CrystalSet, optional
        Training set; needed for novelty and S.U.N.
    tasks : sequence of str, optional
        Some of `TASKS`. Default: all that the given sets allow, without "match", which compares row by row and must be asked for.
    data_set : str
        "mp20", "perov-5" or "carbon-24": coverage cut-offs and packaged energy network.
    cutoffs : (float, float), optional
        Coverage cut-offs of structure and composition, instead of those of `data_set`.
    energy : str, optional
        Column with energies (eV/atom) of both sets, instead of predicted ones.
    e_above_hull : str, optional
        Column of the crystals with energies above the hull (eV/atom), for S.U.N.
    best_of : int, optional
        For "match": use only the first that many answers of a row.
    samples : int, optional
        Evaluate only so many crystals, drawn with `seed` (not for "match").
    time_limit : float
        Seconds for one comparison of two crystals; fingerprints have three times as long.
    processes, cache, progress
        See `Comparer`.

    Raises
    ------
    ValueError
        An unknown task or data set, a task that is asked for without the set it needs, or a number out of its range.
    DataError
        A file that cannot be read, a reference or training set without a crystal, or a column that no crystal has.
    """
    chosen = _checked_tasks(tasks, reference is not None, train is not None)
    covered_within = cutoffs_of(cutoffs or data_set)
    cutoffs_of(data_set)
    checked_limit(time_limit)
    if samples is not None and samples < 1:
        raise ValueError(f"{samples} samples cannot be evaluated")
    cache = cache or Cache(keep=False)
    everything = crystal_set(crystals)
    given, evaluations = _first_evaluation(everything)
    true = None if reference is None else _with_crystals(reference_set(reference))
    known = None if train is None else _with_crystals(crystal_set(train))
    # what cannot be computed is said before the rest is: an error after an hour costs the hour
    if "match" in chosen and true is not None:
        if samples is not None and samples < len(given):
            raise ValueError("samples cannot be drawn for 'match', which pairs every crystal with its row of the reference")
        rows_of(everything, true, best_of)
    if "distributions" in chosen and energy is not None and true is not None:
        per_atom_columns(energy, given, true)
    if "sun" in chosen and e_above_hull is not None:
        given.known_column(e_above_hull)
    if samples is not None and samples < len(given):
        given = given.subset(np.sort(np.random.default_rng(seed).permutation(len(given))[:samples]))
    shared: dict[str, Any] = {"processes": processes, "cache": cache, "progress": progress}
    timed: dict[str, Any] = {"time_limit": time_limit, **shared}
    stored: dict[str, Any] = {"cache": cache, "progress": progress}

    def prints_of(crystals: CrystalSet) -> Fingerprints:
        return fingerprints(crystals, time_limit=3 * time_limit, **shared)

    need_validity = {"validity", "distributions", "diversity"} & set(chosen)
    prints = prints_of(given) if need_validity or {"coverage", "frechet"} & set(chosen) else None
    true_prints = prints_of(true) if true is not None and {"coverage", "frechet"} & set(chosen) else None
    both = {"prints": prints, "reference_prints": true_prints}
    checked = validity(given, prints=prints) if need_validity else None
    results: dict[str, Any] = {}
    missing: dict[str, str] = {task: why for task, why in _left_out(chosen, reference, train).items() if tasks is None}
    for task in chosen:
        if progress:
            progress(task, 0, 0)
        if task == "validity":
            results[task] = checked
        elif task == "coverage" and true is not None:
            results[task] = coverage(given, true, covered_within, **both)  # type: ignore[arg-type]
        elif task == "distributions" and true is not None:
            results[task] = distributions(given, true, energy=energy, network=data_set, checked=checked, **stored)
        elif task == "diversity":
            results[task] = diversity(given, prints=prints, checked=checked)
        elif task == "frechet" and true is not None:
            results[task] = frechet(given, true, network=data_set, **both, **stored)  # type: ignore[arg-type]
        elif task == "uniqueness":
            results[task] = uniqueness(given, **timed)
        elif task == "novelty" and known is not None:
            results[task] = novelty(given, known, **timed)
        elif task == "space_groups":
            results[task] = space_groups(given, true, **stored)
        elif task == "match" and true is not None:
            results[task] = match(everything, true, best_of=best_of, **timed)
        elif task == "sun" and known is not None:
            if e_above_hull is None:
                missing[task] = "no energies above the hull; name their column (e_above_hull)"
                continue
            results[task] = sun(given, known, e_above_hull, unique=results.get("uniqueness"), novel=results.get("novelty"), **timed)
    missing |= {name: why for task, result in results.items() for name, why in missing_numbers(task, result, plain(result)).items()}
    return Evaluation(
        n=len(given),
        unreadable=int((~given.good).sum()),
        results=results,
        missing=missing,
        settings=_settings(
            crystals=given,
            reference=true,
            train=known,
            evaluations=evaluations,
            data_set=data_set,
            cutoffs=covered_within,
            energy=energy,
            e_above_hull=e_above_hull,
            best_of=best_of,
            samples=samples,
            seed=seed,
            time_limit=time_limit,
        ),
        crystals=given,
    )


def _checked_tasks(tasks: Sequence[str] | None, reference: bool, train: bool) -> list[str]:
    if tasks is None:
        return [
            task
            for task in TASKS
            if task != "match" and (reference or task not in _NEEDS_REFERENCE) and (train or task not in _NEEDS_TRAIN)
        ]
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
        if task in _NEEDS_REFERENCE and not reference:
            raise ValueError(f"{task!r} needs a reference set (--reference FILE)")
        if task in _NEEDS_TRAIN and not train:
            raise ValueError(f"{task!r} needs the training set (--train FILE)")
    if not tasks:
        raise ValueError(f"no task given; known: {', '.join(TASKS)}")
    return [task for task in TASKS if task in tasks]


def _left_out(chosen: Sequence[str], reference: Crystals | None, train: Crystals | None) -> dict[str, str]:
    why = {}
    for task in TASKS:
        if task == "match" and task not in chosen:
            why[task] = "compares row by row, so it has to be asked for (tasks)"
        elif task in _NEEDS_REFERENCE and reference is None:
            why[task] = "no reference set was given"
        elif task in _NEEDS_TRAIN and train is None:
            why[task] = "no training set was given"
    return why


def _first_evaluation(crystals: CrystalSet) -> tuple[CrystalSet, str]:
    """The first of several evaluations of the same crystals, and a note on what is done with the others."""
    samples = np.array([row.sample for row in crystals], dtype=int)
    if not samples.any():
        return crystals, "one"
    first = crystals.subset(np.nonzero(samples == samples.min())[0])
    return first, f"{len(np.unique(samples))} in the file: match uses all, everything else the first ({len(first)} crystals)"


def _with_crystals(given: CrystalSet) -> CrystalSet:
    if len(given) and not given.good.any():
        raise DataError(f"{given.source}: none of its {len(given)} entries is a crystal; the first: {given.rows[0].error}")
    return given


def _settings(crystals: CrystalSet, reference: CrystalSet | None, train: CrystalSet | None, **options: Any) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "crystals": crystals.source,
        "reference": reference and reference.source,
        "reference_n": None if reference is None else len(reference),
        "train": train and train.source,
        "train_n": None if train is None else len(train),
        "ignored": [entry for given in (crystals, reference, train) if given is not None for entry in given.ignored],
        **options,
        "versions": {"asegen": __version__, **{name: version(name) for name in ("pymatgen", "spglib", "numpy", "scipy")}},
    }


def plain(result: Any) -> dict[str, Any]:
    """Fields of a result that JSON can hold; what belongs to single crystals stays out."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(result):
        if not entry.repr:
            continue
        value = getattr(result, entry.name)
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not np.isfinite(value):
            value = None
        if value is None or isinstance(value, (bool, int, float, str)):
            found[entry.name] = value
        elif isinstance(value, tuple) and all(isinstance(v, str) for v in value):
            found[entry.name] = list(value)
        elif isinstance(value, dict) and all(isinstance(v, (int, float, str)) for v in value.values()):
            found[entry.name] = value
    return found
