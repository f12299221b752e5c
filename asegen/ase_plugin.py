"""What ASE loads by itself (entry point group ``ase.ioformats``): light, and nothing of torch.

Two things: ASE's programs read the crystals of a run that is not finished (``ase gui generated/…/unfinished.jsonl``), and they can
open trajectories whose atoms carry a :class:`asegen.SpaceGroup` without anybody importing asegen first.
"""

from __future__ import annotations

import json
from typing import IO, Any

import ase.constraints
from ase import Atoms
from ase.utils.plugins import ExternalIOFormat

run_format = ExternalIOFormat(
    desc="Crystals of an unfinished asegen run",
    code="+F",
    module="asegen.ase_plugin",
    glob="unfinished.jsonl",
)


def read_asegen_run(fileobj: IO[str], index: Any = -1) -> Atoms | list[Atoms]:
    """Crystals that a run has finished so far, in the order in which they came."""
    from .store import from_json

    fileobj.readline()  # the request
    return [from_json(json.loads(line))[1] for line in fileobj if line.endswith("\n")][index]


def register_constraint() -> None:
    """Let ASE find the constraint by its name: readers of trajectories look it up in ``ase.constraints``."""
    if "SpaceGroup" not in ase.constraints.__all__:
        vars(ase.constraints)["SpaceGroup"] = _space_group
        ase.constraints.__all__.append("SpaceGroup")


def _space_group(**options: Any) -> Any:
    """Stands for the class until it is needed; importing it takes a second."""
    from .symmetry.constraint import SpaceGroup

    return SpaceGroup(**options)


register_constraint()
