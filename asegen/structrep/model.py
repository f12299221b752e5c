"""A trained diffusion of structure vectors: one safetensors file with weights and scaling, and a JSON header.

The header (metadata key ``asegen``)::

    format        1
    system        "structrepdiff"
    name          "perov-5"
    vector        {"ead": {...}, "elements": [...], "max_atoms": ...}       what the entries of a vector are
    network       {"name": "unet1d", "options": {...}}
    diffusion     {"steps": 2000, "prediction": "v"}
    sampler       {"evaluations": ..., "churn": ..., "order": ...}
    search        {"near": ..., ...}                                        what differs from the defaults
    data, training, metrics                                                as in :mod:`asegen.checkpoint`
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import replacing
from ..descriptors.structure_vector import StructureVector
from ..errors import AsegenError, CheckpointError
from ..networks.unet1d import UNet1D
from ..systems.structrepdiff import CosineSchedule, Sampler, Scaling, VectorDiffusion
from .search import Search

FORMAT = 1
_SUFFIX = ".safetensors"
_SCALING = ("mean", "scale", "low", "high")


@dataclass(frozen=True)
class StructRepModel:
    """A trained diffusion, the meaning of its vectors, and its header."""

    diffusion: VectorDiffusion
    layout: StructureVector
    header: dict[str, Any]
    hash: str
    """The letter c and the first 16 hex digits of the file's SHA-256."""
    path: Path | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """Name given in the recipe."""
        return str(self.header["name"])

    @property
    def sampler(self) -> Sampler:
        """How to sample by default."""
        return Sampler(**self.header.get("sampler", {}))

    @property
    def search(self) -> Search:
        """How to look for positions by default."""
        return Search(**self.header.get("search", {}))


def packaged_structrep() -> dict[str, Path]:
    """Models inside the package, name to path."""
    folder = Path(str(files("asegen") / "assets" / "structrepdiff"))
    return {p.stem: p for p in sorted(folder.glob(f"*{_SUFFIX}"))}


def structrep_path(source: str | Path) -> Path:
    """Path of a packaged name or a file.

    Raises
    ------
    CheckpointError
        Neither.
    """
    known = packaged_structrep()
    path = known.get(str(source)) or Path(source)
    if not path.is_file():
        names = ", ".join(known) or "none"
        raise CheckpointError(f"no structrepdiff checkpoint {str(source)!r}: neither a file nor one of the packaged names ({names})")
    return path


def load_structrep(source: str | Path | StructRepModel, device: str | torch.device | None = None) -> StructRepModel:
    """Load a packaged model by name, or one from a path; loaded files are remembered per process.

    Raises
    ------
    CheckpointError
        No such name or file, not a safetensors file, damaged, of another system, or of another format.
    """
    if isinstance(source, StructRepModel):
        return source
    path = structrep_path(source)
    stat = path.stat()
    return _load(path.resolve(), str(device or "cpu"), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _load(path: Path, device: str, _changed: int, _size: int) -> StructRepModel:
    from safetensors import SafetensorError
    from safetensors.torch import load

    header = read_structrep_header(path)
    try:
        content = path.read_bytes()
        tensors = load(content)
        layout = StructureVector.from_description(header["vector"])
        network = UNet1D(layout.size, **header["network"]["options"])
        scaling = Scaling(*(tensors.pop(f"scaling.{name}").float() for name in _SCALING))
        if len(scaling.mean) != layout.size:
            raise ValueError(f"the scaling has {len(scaling.mean)} entries, the vectors {layout.size}")
        network.load_state_dict({name.removeprefix("network."): value.float() for name, value in tensors.items()})
        settings = header["diffusion"]
        diffusion = VectorDiffusion(network, scaling, CosineSchedule(int(settings["steps"])), settings["prediction"])
        Sampler(**header.get("sampler", {}))
        Search(**header.get("search", {}))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, AsegenError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path} is damaged: {reason}") from error
    diffusion = diffusion.to(device).eval().requires_grad_(False)
    # starts with a letter: text that looks like a number comes back from extxyz as one
    return StructRepModel(diffusion, layout, header, "c" + hashlib.sha256(content).hexdigest()[:16], path)


def read_structrep_header(path: str | Path) -> dict[str, Any]:
    """Header of a model file without its weights.

    Raises
    ------
    CheckpointError
        Not a safetensors file (a pickle, for instance), or not a model of this system.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(str(path), framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a safetensors file (pickled checkpoints are never opened): {error}") from error
    try:
        header = json.loads(metadata.get("asegen", "{}"))
        system, number = header.get("system"), int(header.get("format", 0))
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the checkpoint's header cannot be read: {error}") from error
    if system != "structrepdiff":
        raise CheckpointError(f"{path} holds a system {system!r}, not 'structrepdiff'")
    if number != FORMAT:
        raise CheckpointError(f"{path} has structrepdiff format {number}, this asegen reads {FORMAT}; train it again or update asegen")
    return header


def save_structrep(
    path: str | Path, diffusion: VectorDiffusion, layout: StructureVector, header: Mapping[str, Any], dtype: torch.dtype = torch.bfloat16
) -> None:
    """Write a model; the file appears under its name only when complete.

    Parameters
    ----------
    path : path
        Ends in ``.safetensors``.
    diffusion : VectorDiffusion
    layout : StructureVector
    header : mapping
        ``name``, ``network``, ``data``, ``training``, ``metrics``; the rest is filled in.
    dtype : torch.dtype
        Of the stored weights; the scaling stays in float32.
    """
    from safetensors.torch import save

    full = {
        "format": FORMAT,
        "system": "structrepdiff",
        "vector": layout.describe(),
        "diffusion": {"steps": diffusion.schedule.steps, "prediction": diffusion.prediction},
        "sampler": asdict(Sampler()),
        **header,
    }
    tensors = {f"network.{name}": value.detach().cpu().to(dtype).contiguous() for name, value in diffusion.network.state_dict().items()}
    tensors |= {f"scaling.{name}": getattr(diffusion, name).detach().cpu().float().contiguous() for name in _SCALING}
    with replacing(path) as stream:
        stream.write(save(tensors, metadata={"asegen": json.dumps(full)}))


__all__ = ["StructRepModel", "load_structrep", "packaged_structrep", "read_structrep_header", "save_structrep", "structrep_path"]
