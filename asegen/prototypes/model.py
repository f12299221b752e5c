"""A trained prototype model: one safetensors file, from a formula to ranked candidate crystals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoint import replacing
from ..errors import CheckpointError
from ..symmetry.groups import Group
from .packing import pack_table, unpack_table
from .ranker import Ranker
from .ranking import Candidate, rank
from .table import PrototypeTable

FORMAT = 2
"""Format 1 kept no crystals and no energies, and cells of different sizes apart; it is still read."""
_SUFFIX = ".safetensors"


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
        units: int | Sequence[int] | None = None,
        order: str = "stable",
        spacegroup: int | str | Group | None = None,
        new: bool = False,
        diversity: float = 0.5,
    ) -> tuple[list[Candidate], float]:
        """The most probable prototypes of a composition, best first.

        Parameters
        ----------
        formula : str or array of int
            Such as ``"TiO2"``, or atomic numbers of all atoms.
        n : int, optional
            At most so many; default: all that the second stage looks at.
        units : int or list of int, optional
            Only cells with so many of the formula as written (``"Ti2O4"`` with 1: six atoms). Default: cells of any size.
        order : str
            ``"stable"``: what forms. Known crystals come by their energy above the hull. ``"likely"``: what a database of such crystals
            holds; so do all answers of a model whose data had no energies.
        spacegroup : int, str or Group, optional
            Only prototypes of this group; the probabilities are then those given the group.
        new : bool
            Leave out the known crystals of this composition. With ``order="likely"``: what the next entry of the database would be, which
            may be another one of a prototype that is known for it, less likely by as much as was learned.
        diversity : float
            0: every candidate counts for itself. Towards 1, candidates that are nearly the same crystal as a better one go to the
            end of the list (:func:`asegen.prototypes.selection.select`).

        Returns
        -------
        candidates : list of Candidate
        new_prototype : float
            Probability that the crystal has a prototype that the training data do not hold.
        """
        handbook = self.header.get("handbook", {})
        return rank(self.table, self.ranker, formula, n, units, order, spacegroup, new, diversity, handbook)


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
    if not 1 <= number <= FORMAT:
        raise CheckpointError(f"{path} has prototype format {number}, this asegen reads 1 to {FORMAT}; train it again or update asegen")
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
        weights = {name[7:]: value.float() for name, value in arrays.items() if name.startswith("ranker.")}
        if header["format"] == 1:
            ranker.load_format_1(weights)
        else:
            ranker.load_state_dict(weights)
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
