"""A recipe: everything that decides a training run but the data, one short TOML file, one dataclass."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..dynamics.rules import Walk
from ..errors import RecipeError
from ..kernels import Schedule
from ..networks import NETWORKS


@dataclass(frozen=True)
class Recipe:
    """How to train a checkpoint. Every field can stand in the TOML file under its own name."""

    name: str
    """Name of the checkpoint."""
    data_name: str = ""
    """What the data are, for the header: "MP-20, training split"."""
    data_licence: str = ""
    """Licence of the data, for the header."""
    system: str = "diffusion"
    network: str = "dense"
    """``dense`` or ``equivariant``."""
    network_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the network's class."""
    schedule: dict[str, float] = field(default_factory=dict)
    """Arguments of :class:`asegen.kernels.Schedule` that differ from the defaults."""
    max_atoms: int = 20
    """Crystals with more atoms are left out."""
    free_share: float = 0.2
    """Share of training crystals with hidden elements (de novo)."""
    steps: int = 10_000
    """Optimizer steps."""
    batch_size: int = 256
    """Crystals per step and process."""
    learning_rate: float = 1e-3
    """Of AdamW, for all but the hidden matrices."""
    matrix_rate: float = 0.02
    """Of Muon, for the hidden matrices."""
    weight_decay: float = 0.01
    warmup: int = 100
    """Steps over which the rates rise from zero."""
    decay: float = 0.6
    """Share of the steps, at the end, over which the rates fall linearly to zero."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones kept."""
    clip: float = 1.0
    """Largest gradient norm."""
    precision: str = "bf16-mixed"
    """Lightning's name: ``bf16-mixed`` or ``32-true``."""
    initial: str = ""
    """Checkpoint to start from (path or packaged name); empty: random weights."""
    walk: dict[str, float] = field(default_factory=dict)
    """How to sample by default (:class:`asegen.dynamics.Walk`), measured on validation data."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.system != "diffusion":
            raise RecipeError(f"recipe {self.name!r}: unknown system {self.system!r}; known is 'diffusion'")
        if self.network not in NETWORKS:
            raise RecipeError(f"recipe {self.name!r}: unknown network {self.network!r}; known are {', '.join(NETWORKS)}")
        for entry, kind in (("schedule", Schedule), ("walk", Walk)):
            unknown = set(getattr(self, entry)) - {f.name for f in dataclasses.fields(kind)}
            if unknown:
                raise RecipeError(f"recipe {self.name!r}: {entry} has no entry {', '.join(sorted(unknown))}")
        for entry in ("steps", "batch_size", "max_atoms"):
            if getattr(self, entry) < 1:
                raise RecipeError(f"recipe {self.name!r}: {entry} = {getattr(self, entry)} must be at least 1")
        for entry in ("free_share", "decay"):
            if not 0 <= getattr(self, entry) <= 1:
                raise RecipeError(f"recipe {self.name!r}: {entry} = {getattr(self, entry)} must lie in [0, 1]")

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all entries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a TOML recipe.

        Raises
        ------
        RecipeError
            No such file, not TOML, an unknown entry, or one of the wrong type.
        """
        entries, where = read_toml(path)
        return cls.from_dict(entries, where)

    @classmethod
    def from_dict(cls, entries: dict[str, Any], where: str = "recipe") -> Recipe:
        """Recipe from plain entries, each checked for name and type."""
        return cls(**checked_entries(asdict(cls(name="x")), entries, where))


def read_toml(path: str | Path) -> tuple[dict[str, Any], str]:
    """Entries of a TOML recipe, its name the file's unless it says another, and the path for messages.

    Raises
    ------
    RecipeError
        No such file, or not TOML.
    """
    path = Path(path)
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not valid TOML: {error}") from error
    return {"name": path.stem, **entries}, str(path)


def checked_entries(defaults: dict[str, Any], entries: dict[str, Any], where: str) -> dict[str, Any]:
    """Entries that all have the name and the type of a default.

    Raises
    ------
    RecipeError
        An unknown entry, or one of the wrong type.
    """
    checked = {}
    for key, value in entries.items():
        if key not in defaults:
            raise RecipeError(f"{where}: unknown entry {key!r}; known are {', '.join(sorted(defaults))}")
        wanted = type(defaults[key])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise RecipeError(f"{where}: {key} = {value!r} should be of type {wanted.__name__}")
        checked[key] = value
    return checked
