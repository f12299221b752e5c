"""Training a prototype model: sort the training crystals into prototypes, fit their geometries, learn the ranking."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ..datasets.arrays import CrystalArrays
from ..errors import DataError
from ..formulas import numbers_of
from ..symmetry.groups import space_group
from ..training.recipe import checked_entries, read_toml
from .alignment import Cluster, gather
from .geometry import fit_geometry
from .learning import train_ranker
from .model import save_prototypes
from .ranker import Ranker
from .ranking import composition_key
from .standard import Key, StandardCrystal, standard_crystal
from .table import Prototype, PrototypeTable, environment_of


@dataclass(frozen=True)
class PrototypeRecipe:
    """How to train a prototype model. Every field can stand in the TOML file under its own name."""

    name: str
    """Name of the model."""
    system: str = "prototypes"
    data_name: str = ""
    """What the data are, for the header."""
    data_licence: str = ""
    """Licence of the data, for the header."""
    max_atoms: int = 20
    """Crystals with more atoms are left out."""
    kernel_epochs: int = 4
    """Passes of the first stage."""
    kernel_rate: float = 0.01
    kernel_queries: int = 1500
    """Most queries of one family in a pass of the first stage, for each of the two questions."""
    epochs: int = 4
    """Passes of the second stage."""
    rate: float = 2e-3
    networks: int = 2
    """Members of the ensemble."""
    width: int = 32
    hidden: int = 64
    dropout: float = 0.25
    weight_decay: float = 0.1
    queries: int = 4000
    """The same in a pass of the second stage (families of one anonymous formula can hold most of a data set)."""
    processes: int = 2
    """For sorting the crystals into prototypes."""
    handbook: str = ""
    """CSV file of common compounds and their space groups at ambient conditions (columns `groups`, `formulas`), kept in the header."""
    seed: int = 0

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all entries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path) -> PrototypeRecipe:
        """Read a TOML recipe.

        Raises
        ------
        RecipeError
            An unknown entry, or one of the wrong type.
        """
        entries, where = read_toml(path)
        return cls(**checked_entries(asdict(cls(name="x")), entries, where))


def train_prototypes(recipe: PrototypeRecipe, data: str | Path, out: str | Path, report: Callable[[str], None] | None = None) -> Path:
    """Train a prototype model.

    Parameters
    ----------
    recipe : PrototypeRecipe
    data : path
        Folder of training arrays (``asegen data convert``).
    out : path
        Folder for ``NAME.safetensors``; its header keeps the losses.
    report : callable, optional
        Gets a line about every stage.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        No crystal could be used.
    """
    say = report or (lambda line: None)
    begin = time.time()
    torch.manual_seed(recipe.seed)
    handbook = read_handbook(recipe.handbook) if recipe.handbook else {}
    arrays = CrystalArrays.open(data)
    clusters, unused = sort_crystals(arrays, recipe, say)
    known = Known.of(arrays)
    table = PrototypeTable([prototype_of(cluster, known) for cluster in clusters])
    say(f"{len(table)} prototypes, {sum(len(p.examples) == 1 for p in table.prototypes)} of them seen once")
    ranker = Ranker(recipe.networks, recipe.width, recipe.hidden, recipe.dropout)
    losses = train_ranker(ranker, table, recipe, say)
    ranker.eval()
    count = sum(len(p.examples) for p in table.prototypes)
    header = {
        "name": recipe.name,
        "ranker": {"networks": recipe.networks, "width": recipe.width, "hidden": recipe.hidden, "dropout": recipe.dropout},
        "data": {
            "name": recipe.data_name,
            "licence": recipe.data_licence,
            "count": count,
            "unused": unused,
            "max_atoms": recipe.max_atoms,
            "prototypes": len(table),
        },
        "handbook": handbook,
        "training": {"recipe": asdict(recipe), "recipe_hash": recipe.hash, "seconds": round(time.time() - begin), "losses": losses},
        "metrics": {},
    }
    target = Path(out) / f"{recipe.name}.safetensors"
    save_prototypes(target, table, ranker, header)
    return target


# ------------------------------------------------------------------------------------------------------------- prototypes


def sort_crystals(arrays: CrystalArrays, recipe: PrototypeRecipe, say: Callable[[str], None]) -> tuple[list[Cluster], int]:
    """Prototypes of all crystals, in a fixed order, and the number of crystals that have no primitive standard cell."""
    chosen = np.flatnonzero(arrays.num_atoms <= recipe.max_atoms)
    if not len(chosen):
        raise DataError(f"no crystal has at most {recipe.max_atoms} atoms")
    jobs = [
        (np.array(arrays.cell[k], dtype=float), np.array(arrays.frac[s], dtype=float), np.array(arrays.numbers[s], dtype=int))
        for k in chosen
        for s in [slice(arrays.offsets[k], arrays.offsets[k + 1])]
    ]
    by_key: dict[Key, list[tuple[int, StandardCrystal]]] = {}
    with ProcessPoolExecutor(recipe.processes) as pool:
        for k, crystal in zip(chosen, pool.map(_standard, jobs, chunksize=100), strict=True):
            if crystal is not None:
                by_key.setdefault(crystal.key, []).append((int(k), crystal))
        used = sum(len(members) for members in by_key.values())
        say(f"{used} of {len(jobs)} crystals in standard settings, {len(by_key)} combinations of sites")
        groups = sorted(by_key.items(), key=lambda item: (-len(item[1]), item[0]))
        clusters = [c for found in pool.map(gather, [members for _, members in groups], chunksize=4) for c in found]
    if not clusters:
        raise DataError("no crystal has a primitive cell in which its symmetry can be found")
    return clusters, len(jobs) - used


def _standard(job: tuple[np.ndarray, np.ndarray, np.ndarray]) -> StandardCrystal | None:
    return standard_crystal(*job)


@dataclass(frozen=True)
class Known:
    """What the data say of each crystal beside its structure."""

    hull: np.ndarray
    """Energy above the hull, eV/atom, NaN where unknown, shape (b,)."""
    published: np.ndarray
    """Whether it was published, shape (b,)."""
    material: np.ndarray
    """Number of the Materials Project id, 0 where there is none, shape (b,)."""

    @classmethod
    def of(cls, arrays: CrystalArrays) -> Known:
        """From the properties of training arrays, those that are there.

        ``e_above_hull`` (eV/atom), where it is empty ``e_above_hull_calc``; ``e_above_hull_published`` (1 or 0; default: all are);
        ``material``.
        """
        empty = np.full(len(arrays), np.nan)
        hull = np.array(arrays.properties.get("e_above_hull", empty), dtype=float)
        hull = np.where(np.isnan(hull), np.array(arrays.properties.get("e_above_hull_calc", empty), dtype=float), hull)
        published = np.array(arrays.properties.get("e_above_hull_published", np.isfinite(hull))) > 0
        material = np.nan_to_num(np.array(arrays.properties.get("material", empty))).astype(np.int64)
        return cls(hull, published, material)


def read_handbook(path: str | Path) -> dict[str, list[int]]:
    """Space groups at ambient conditions by reduced formula (:func:`asegen.prototypes.ranking.composition_key`).

    Raises
    ------
    DataError
        The file cannot be read, or a line of it.
    """
    found: dict[str, list[int]] = {}
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                groups = [space_group(int(text)).number for text in line["groups"].split()]
                if not groups or None in line:
                    raise ValueError(f"{line} should be groups, a comma, and formulas with spaces between them")
                for formula in line["formulas"].split():
                    key = composition_key(numbers_of(formula))
                    found[key] = [*found.get(key, []), *groups]
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is no table of formulas and space groups: {error}") from error
    return found


def prototype_of(cluster: Cluster, known: Known | None = None) -> Prototype:
    """What is kept of a prototype's examples."""
    geometry, own = fit_geometry(cluster)
    count = len(cluster.members)
    if known is None:
        known = Known(np.full(count, np.nan), np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64))
        source = np.arange(count)
    else:
        source = np.array([member.source for member in cluster.members])
    return Prototype(
        cluster.key[0],
        cluster.counts,
        geometry,
        tuple(cluster.swaps),
        environment_of(cluster.slot, cluster.frac, cluster.metric).astype(np.float32),
        np.array([member.elements for member in cluster.members], dtype=np.uint8),
        own,
        known.hull[source],
        known.published[source],
        known.material[source],
    )


__all__ = ["Known", "PrototypeRecipe", "prototype_of", "read_handbook", "sort_crystals", "train_prototypes"]
