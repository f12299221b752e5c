"""Results of a run on disk: every finished crystal is kept at once, and final files appear only when complete."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms

from .checkpoint import replacing
from .errors import AsegenError

_PARTIAL = "unfinished.jsonl"
_FINAL = "structures.extxyz"
_PICTURE = "crystals.png"


class Journal:
    """A file of one JSON object per line: the request first, then what was finished, each line on disk at once.

    Parameters
    ----------
    path : path
    request : dict
        All that decides the results.
    """

    def __init__(self, path: str | Path, request: dict[str, Any]) -> None:
        self.path = Path(path)
        self.request = json.loads(json.dumps(request))

    def entries(self) -> list[dict[str, Any]]:
        """What an earlier run of the same request had finished; a line torn by a kill is left out.

        Raises
        ------
        AsegenError
            The file belongs to another request, or is none of ours.
        """
        if not self.path.exists():
            return []
        found = []
        with open(self.path, encoding="utf-8") as stream:
            try:
                first = stream.readline()
                same = first.endswith("\n") and json.loads(first) == self.request
                for line in stream if same else ():
                    if line.endswith("\n"):
                        found.append(json.loads(line))
            except ValueError as error:
                raise AsegenError(f"{self.path} is damaged; give another --out, or --overwrite") from error
        if not same:
            raise AsegenError(f"{self.path.parent} holds the results of another run; give another --out, or --overwrite")
        return found

    def add(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append; what is written survives a kill from here on."""
        if not self.path.exists():
            with replacing(self.path) as stream:
                stream.write((json.dumps(self.request) + "\n").encode())
        self._drop_torn_line()
        with open(self.path, "a", encoding="utf-8") as stream:
            for entry in entries:
                stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _drop_torn_line(self) -> None:
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            with open(self.path, "r+b") as stream:
                stream.truncate(content.rfind(b"\n") + 1)


class RunFolder:
    """A folder that a run writes to and, if it was killed, goes on from.

    While the run lasts, ``unfinished.jsonl`` holds the request in its first line and a crystal in each further one. At the
    end it gives way to ``structures.extxyz``.

    Parameters
    ----------
    folder : path
    request : dict
        All that decides the result; a folder of another request is refused.
    overwrite : bool
        Start anew whatever is there.

    Raises
    ------
    AsegenError
        The folder holds results of another request.
    """

    def __init__(self, folder: str | Path, request: dict[str, Any], overwrite: bool = False) -> None:
        self.folder = Path(folder)
        self.request = json.loads(json.dumps(request))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise AsegenError(f"{folder} is a file, not a folder to write results to") from error
        self.partial = self.folder / _PARTIAL
        self._journal = Journal(self.partial, self.request)
        self.final = self.folder / _FINAL
        if overwrite:
            for path in (self.partial, self.final):
                path.unlink(missing_ok=True)
            for path in (self.folder / "cif").glob("*.cif"):
                path.unlink()
        elif self.final.exists() and self._finished_request() != self.fingerprint:
            raise AsegenError(f"{self.folder} holds the results of another run; give another --out, or --overwrite")

    @property
    def fingerprint(self) -> str:
        """Hash of the request."""
        # starts with a letter: text that looks like a number comes back from extxyz as one
        return "r" + hashlib.sha256(json.dumps(self.request, sort_keys=True).encode()).hexdigest()[:16]

    def done(self) -> dict[int, Atoms]:
        """Crystals that an earlier, killed run of the same request had finished, by position."""
        if self.final.exists():
            # where places of the list stayed empty, the others know their own
            return {int(atoms.info.get("place", k)): atoms for k, atoms in enumerate(ase.io.read(str(self.final), index=":"))}
        return dict(from_json(entry) for entry in self._journal.entries())

    def add(self, crystals: Sequence[tuple[int, Atoms]]) -> None:
        """Keep finished crystals; they survive a kill from here on."""
        self._journal.add([to_json(position, atoms) for position, atoms in crystals])

    def finish(self, crystals: Sequence[Atoms]) -> None:
        """Write the final file and remove the unfinished ones."""
        for atoms in crystals:
            atoms.info["request"] = self.fingerprint
        text = io.StringIO()
        ase.io.write(text, list(crystals), format="extxyz")
        with replacing(self.final) as stream:
            stream.write(text.getvalue().encode())
        self.partial.unlink(missing_ok=True)
        for name in (_PARTIAL, _FINAL, _PICTURE):  # begun by a run that was killed while it wrote them
            for begun in self.folder.glob(f".{name}-*"):
                begun.unlink(missing_ok=True)

    def _finished_request(self) -> str:
        try:
            first: Any = ase.io.read(str(self.final), index=0)
        except Exception as error:
            raise AsegenError(f"{self.final} cannot be read ({error}); give another --out, or --overwrite") from error
        return str(first.info.get("request", ""))


def to_json(position: int, atoms: Atoms) -> dict[str, Any]:
    """One crystal as plain JSON, exact to the last bit: with its arrays (moments, tags) and fixed atoms."""
    info = {k: v for k, v in atoms.info.items() if isinstance(v, (str, int, float, bool, list))}
    arrays = {k: v.tolist() for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    fixed = sorted({int(i) for c in atoms.constraints if isinstance(c, FixAtoms) for i in c.index})
    more = {key: value for key, value in (("arrays", arrays), ("fixed", fixed)) if value}
    return {
        "position": position,
        "numbers": atoms.numbers.tolist(),
        "cell": atoms.cell.array.tolist(),
        "positions": atoms.positions.tolist(),
        "info": info,
        **more,
    }


def from_json(entry: dict[str, Any]) -> tuple[int, Atoms]:
    """Inverse of :func:`to_json`."""
    atoms = Atoms(numbers=entry["numbers"], positions=np.array(entry["positions"]), cell=entry["cell"], pbc=True)
    atoms.info.update(entry["info"])
    for name, values in entry.get("arrays", {}).items():
        atoms.set_array(name, np.array(values))
    if entry.get("fixed"):
        atoms.set_constraint(FixAtoms(entry["fixed"]))
    return entry["position"], atoms
