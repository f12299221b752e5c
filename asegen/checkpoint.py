"""Checkpoints: one safetensors file with the weights and a JSON header. Nothing in it can run code.

The header (metadata key ``asegen``) holds all that is needed to rebuild the model and to know where it comes from::

    format        2
    name          "mp20"
    system        "diffusion"
    network       {"name": "dense", "options": {...}}
    schedule      {"sigma_min": ..., ...}
    data          {"name": ..., "count": ..., "licence": ..., "elements": [...], "max_atoms": ..., "sizes": {...}}
    training      {"recipe": {...}, "recipe_hash": ..., "steps": ..., "seconds": ...}
    walk          how to sample by default
    metrics       measured quality, each with its protocol
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .errors import CheckpointError, FormulaError
from .kernels import Schedule
from .networks import build_network
from .systems.diffusion import DiffusionSystem

FORMAT = 2
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A trained system and its header."""

    system: DiffusionSystem
    header: dict[str, Any]
    hash: str
    """The letter c and the first 16 hex digits of the file's SHA-256."""
    path: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Name given in the recipe."""
        return str(self.header["name"])

    @property
    def max_atoms(self) -> int:
        """Largest cell in the training data."""
        return int(self.header["data"]["max_atoms"])

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur in the training data."""
        return {int(z) for z in self.header["data"]["elements"]}

    @property
    def walk_defaults(self) -> dict[str, Any]:
        """Measured best way down the noise levels (:class:`asegen.dynamics.Walk`)."""
        return dict(self.header.get("walk", {}))

    def check_numbers(self, numbers: Sequence[int] | np.ndarray, what: str = "the crystal") -> None:
        """Raise :class:`FormulaError` if a crystal is outside what the checkpoint was trained on."""
        from ase.data import chemical_symbols

        if len(numbers) > self.max_atoms:
            raise FormulaError(f"{what} has {len(numbers)} atoms; checkpoint '{self.name}' was trained on cells of up to {self.max_atoms}")
        unknown = sorted({int(z) for z in numbers} - self.elements - {0})
        if unknown:
            names = ", ".join(chemical_symbols[z] for z in unknown)
            raise FormulaError(f"{what} contains {names}, which checkpoint '{self.name}' has never seen in training")


def packaged() -> dict[str, Path]:
    """Checkpoints inside the package, name to path."""
    folder = Path(str(files("asegen") / "assets" / "checkpoints"))
    return {p.stem: p for p in sorted(folder.glob(f"*{_SUFFIX}"))}


def load_checkpoint(source: str | Path | Checkpoint = "default", device: str | torch.device | None = None) -> Checkpoint:
    """Load a packaged checkpoint by name, or one from a path; loaded files are remembered per process.

    A loaded checkpoint is handed through, moved to `device` if one is named and it is elsewhere; files go to the CPU by default.

    Raises
    ------
    CheckpointError
        No such name or file, not a safetensors file, damaged, not one of ours, or of a newer format.
    """
    if isinstance(source, Checkpoint):
        if device is None or source.system.barred.device == torch.empty(0, device=device).device:
            return source
        return replace(source, system=copy.deepcopy(source.system).to(device))
    known = packaged()
    path = known.get(str(source)) or Path(source)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint {str(source)!r}: neither a file nor one of the packaged names ({', '.join(known) or 'none'})")
    stat = path.stat()
    return _load(path.resolve(), str(device or "cpu"), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)
def _load(path: Path, device: str, _changed: int, _size: int) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = read_header(path)
    try:
        content = path.read_bytes()
        weights = load(content)
        network = build_network(header["network"]["name"], header["network"]["options"])
        schedule = Schedule(**header["schedule"])
        # constants are the ones this version builds; only what was trained comes from the file
        trained = {name: value.float() for name, value in weights.items() if name in dict(network.named_parameters())}
        network.load_state_dict({**network.state_dict(), **trained})
        missing = set(dict(network.named_parameters())) - set(trained)
        if missing:
            raise ValueError(f"weights are missing: {', '.join(sorted(missing)[:3])}")
        system = DiffusionSystem(network, schedule, known=[int(z) for z in header["data"]["elements"]])
        int(header["data"]["max_atoms"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    system = system.to(device).eval().requires_grad_(False)
    # starts with a letter: text that looks like a number comes back from extxyz as one
    return Checkpoint(system, header, "c" + hashlib.sha256(content).hexdigest()[:16], path)


def read_header(path: str | Path) -> dict[str, Any]:
    """Header of a checkpoint file without its weights.

    Raises
    ------
    CheckpointError
        Not a safetensors file (a pickle, for instance), or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file (pickled checkpoints are never opened): {error}") from error
    if "asegen" not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but no asegen checkpoint (its header has no 'asegen' entry)")
    try:
        header = json.loads(metadata["asegen"])
        number = int(header["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: the checkpoint's header cannot be read: {error}") from error
    if header.get("system") == "structrepdiff":
        raise CheckpointError(f"{path} holds a model of another system; generate with --system structrepdiff")
    if number != FORMAT:
        raise CheckpointError(f"{path} has checkpoint format {number}, this asegen reads {FORMAT}; train it again or update asegen")
    if header.get("system") != "diffusion":
        raise CheckpointError(f"{path} holds a system {header.get('system')!r} that this version of asegen does not know")
    return header


def save_checkpoint(path: str | Path, system: DiffusionSystem, header: dict[str, Any], dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a checkpoint; the file appears under its name only when complete.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors``.
    system : DiffusionSystem
    header : dict
        ``name``, ``network``, ``data``, ``training``, ``metrics``; the rest is filled in.
    dtype : torch.dtype
        Of the stored weights. bfloat16 halves the file; what the model cards report was measured with weights stored so.
    """
    from safetensors.torch import save

    header = {"format": FORMAT, "system": "diffusion", "schedule": asdict(system.schedule), **header}
    weights = {name: value.detach().cpu().to(dtype).contiguous() for name, value in system.network.named_parameters()}
    with replacing(path) as stream:
        stream.write(save(weights, metadata={"asegen": json.dumps(header)}))


@contextmanager
def replacing(path: str | Path) -> Iterator[Any]:
    """Open a binary file that takes its final name only when it is written completely."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
