"""A trained prototype model: one safetensors file, from a formula to ranked candidate crystals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols

from ..checkpoint import replacing
from ..errors import CheckpointError
from ..formulas import numbers_of
from ..prior import atomic_volumes
from ..symmetry.crystal import crystal_from_sites
from ..symmetry.groups import Group, space_group
from ..symmetry.lattices import conventional_cell
from ..symmetry.symmetry import Symmetry
from .ranker import Ranker
from .selection import select
from .table import Prototype, PrototypeTable, composition, pack_table, unpack_table

FORMAT = 1
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Candidate:
    """A prototype with elements on its sites, for one formula."""

    prototype: Prototype
    elements: tuple[int, ...]
    """Atomic numbers in the slots."""
    probability: float
    """That a crystal of this formula has this prototype with these elements on the sites."""
    known: bool
    """Whether the training data hold this formula in this prototype."""
    values: np.ndarray = field(repr=False)
    """Predicted free parameters, shape of the cell, log of the volume ratio."""

    @property
    def sites(self) -> list[tuple[str, str]]:
        """Element and label of every site: ``[("Sr", "1a"), ("Ti", "1b"), ("O", "3c")]``."""
        group = space_group(self.prototype.number)
        geometry = self.prototype.geometry
        return [
            (chemical_symbols[self.elements[slot]], group.position(letter).label)
            for letter, slot in zip(geometry.letters, geometry.slots, strict=True)
        ]

    @property
    def volume(self) -> float:
        """Predicted volume of the primitive cell, Å³."""
        volumes = np.nan_to_num(atomic_volumes(), nan=18.0)
        reference = sum(n * volumes[z] for n, z in zip(self.prototype.counts, self.elements, strict=True))
        return float(np.exp(self.values[-1]) * reference)

    def crystal(self) -> tuple[Atoms, Symmetry]:
        """The crystal that the prototype predicts, in the primitive cell, and its symmetry."""
        group = space_group(self.prototype.number)
        sites, first = [], 0
        for letter, slot in zip(self.prototype.geometry.letters, self.prototype.geometry.slots, strict=True):
            last = first + group.position(letter).dof
            sites.append((chemical_symbols[self.elements[slot]], letter, self.values[first:last]))
            first = last
        volume = self.volume / abs(np.linalg.det(group.primitive))
        return crystal_from_sites(group, sites, conventional_cell(group.lattice_system, volume, self.values[first:-1]))


@dataclass(frozen=True)
class PrototypeModel:
    """A trained prototype model."""

    table: PrototypeTable
    ranker: Ranker
    header: dict[str, Any]
    hash: str = ""

    @property
    def name(self) -> str:
        """Name given in the recipe."""
        return str(self.header["name"])

    def rank(
        self,
        formula: str | np.ndarray,
        n: int | None = None,
        *,
        spacegroup: int | str | Group | None = None,
        new: bool = False,
        diversity: float = 0.5,
    ) -> tuple[list[Candidate], float]:
        """The most probable prototypes of a formula, best first.

        Parameters
        ----------
        formula : str or array of int
            As written (``"SrTiO3"`` has five atoms in the primitive cell), or atomic numbers of all atoms.
        n : int, optional
            At most so many; default: all that the second stage looks at.
        spacegroup : int, str or Group, optional
            Only prototypes of this group; the probabilities are then those given the group.
        new : bool
            Look for what the training data do not hold: crystals of this very formula that are in them count as evidence
            against their prototype and all that is nearly the same. Default: they come first, and the probabilities take no
            notice of what is in the training data already.
        diversity : float
            0: the order of the probabilities. Towards 1, candidates that are nearly the same crystal as a better one go to
            the end of the list (:func:`asegen.prototypes.selection.select`).

        Returns
        -------
        candidates : list of Candidate
        new_prototype : float
            Probability that the crystal has a prototype that the training data do not hold.
        """
        numbers = numbers_of(formula) if isinstance(formula, str) else np.asarray(formula)
        elements, counts = composition(numbers)
        family = self.table.family(counts)
        if family is None:
            return [], 1.0
        allowed = None
        if spacegroup is not None:
            number = space_group(spacegroup).number
            allowed = torch.tensor([self.table.prototypes[k].number == number for k in family.members])
            if not allowed.any():
                return [], 1.0
        query = torch.from_numpy(elements.astype(np.int64))[None]
        with torch.inference_mode():
            found, log_p, log_new = self.ranker(family, query, repeats=new, allowed=allowed)
        real = found.real[0]
        index, probability = found.index[0][real], log_p[0][real].exp().double()
        share_new = float(log_new.exp())
        probability = probability / probability.sum() * (1 - share_new)
        prototype, order = family.split(index)
        known = torch.zeros(len(index), dtype=torch.bool)
        matches = (query[0][family.orders][:, None] == family.examples).all(-1)
        if matches.any():
            known = torch.isin(index, family.candidate[matches])
        chosen = select(family, index, probability, first=torch.zeros_like(known) if new else known, diversity=diversity)[:n]
        made = []
        for k in chosen:
            entry = self.table.prototypes[family.members[int(prototype[k])]]
            assigned = elements[family.orders[int(order[k])].numpy()]
            values = entry.geometry.predict(assigned)
            made.append(Candidate(entry, tuple(int(z) for z in assigned), float(probability[k]), bool(known[k]), values))
        return made, share_new


def packaged_prototypes() -> dict[str, Path]:
    """Prototype models inside the package, name to path."""
    folder = Path(str(files("asegen") / "assets" / "prototypes"))
    return {p.stem: p for p in sorted(folder.glob(f"*{_SUFFIX}"))}


def load_prototypes(source: str | Path | PrototypeModel = "default") -> PrototypeModel:
    """Load a packaged prototype model by name, or one from a path; loaded files are remembered per process.

    Raises
    ------
    CheckpointError
        No such name or file, damaged, or not a prototype model.
    """
    if isinstance(source, PrototypeModel):
        return source
    known = packaged_prototypes()
    path = known.get(str(source)) or Path(source)
    if not path.is_file():
        names = ", ".join(known) or "none"
        raise CheckpointError(f"no prototype model {str(source)!r}: neither a file nor one of the packaged names ({names})")
    stat = path.stat()
    return _load(path.resolve(), stat.st_mtime_ns, stat.st_size)


def read_prototypes_header(path: str | Path) -> dict[str, Any]:
    """Header of a prototype model.

    Raises
    ------
    CheckpointError
        Not a safetensors file, not a prototype model, or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
        header = json.loads(metadata["asegen"])
        system, number = header.get("system"), int(header["format"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged or no prototype model: {error}") from error
    if system != "prototypes":
        raise CheckpointError(f"{path} holds a system {system!r}, not a prototype model")
    if number != FORMAT:
        raise CheckpointError(f"{path} has prototype format {number}, this asegen reads {FORMAT}; train it again or update asegen")
    return header


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int, _size: int) -> PrototypeModel:
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = read_prototypes_header(path)
    try:
        content = path.read_bytes()
        arrays = load(content)
        table = unpack_table({name[6:]: value.numpy() for name, value in arrays.items() if name.startswith("table.")})
        ranker = Ranker(**header["ranker"])
        ranker.load_state_dict({name[7:]: value.float() for name, value in arrays.items() if name.startswith("ranker.")})
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    ranker.eval().requires_grad_(False)
    return PrototypeModel(table, ranker, header, "c" + hashlib.sha256(content).hexdigest()[:16])


def save_prototypes(path: str | Path, table: PrototypeTable, ranker: Ranker, header: Mapping[str, Any]) -> None:
    """Write a prototype model; the file appears under its name only when complete."""
    from safetensors.torch import save

    arrays = {f"table.{name}": torch.from_numpy(np.array(value)) for name, value in pack_table(table).items()}
    arrays |= {f"ranker.{name}": value.detach().to(torch.bfloat16).contiguous() for name, value in ranker.state_dict().items()}
    with replacing(path) as stream:
        stream.write(save(arrays, metadata={"asegen": json.dumps({"format": FORMAT, "system": "prototypes", **header})}))


__all__ = ["Candidate", "PrototypeModel", "load_prototypes", "packaged_prototypes", "read_prototypes_header", "save_prototypes"]
