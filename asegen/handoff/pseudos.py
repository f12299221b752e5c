"""Pseudopotentials (UPF): what their headers say, and which of a folder are taken for PBE."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..datasets.rows import natural
from ..errors import HandoffError

#: Where Debian and Ubuntu (package quantum-espresso-data) keep them.
SYSTEM_FOLDER = Path("/usr/share/espresso/pseudo")
_PBE = {"PBE", "SLA PW PBX PBC", "SLA PW PBE PBE"}
# projector augmented waves are the closest to all electrons, then ultrasoft, then norm-conserving
_KINDS = {"PAW": 0, "US": 1, "USPP": 1, "NC": 2, "SL": 2}
_HEAD = 200_000


@dataclass(frozen=True)
class Pseudo:
    """One pseudopotential file, as its header describes it."""

    path: Path
    element: str
    functional: str
    """As written, blanks joined: ``PBE``, ``SLA PW PBX PBC``, …"""
    kind: str
    """``PAW``, ``US``, ``USPP``, ``NC``, ``SL``, or another."""
    valence: float
    """Electrons that are not in the core."""
    relativistic: bool
    """Made for spin-orbit coupling ("full")."""
    gipaw: bool
    """Made for magnetic resonance rather than energies; told by its name, for many others carry that data too."""
    ecutwfc: float | None
    """Suggested minimum for wavefunctions, Ry; None if the header has none."""
    ecutrho: float | None
    """Suggested minimum for the density, Ry; None if the header has none."""

    @property
    def usable(self) -> bool:
        """Whether it is a scalar-relativistic PBE pseudopotential."""
        return self.functional in _PBE and self.kind in _KINDS and not self.relativistic and not self.gipaw


def read_pseudo(path: str | Path) -> Pseudo | None:
    """Header of a UPF file of version 1 or 2; None if it has none that can be read."""
    path = Path(path)
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    found = re.search(r"<PP_HEADER\b([^>]*?)/?>(.*)", head, re.DOTALL)
    if not found:
        return None
    try:
        return _second(path, found[1]) if "element" in found[1] else _first(path, head, found[2])
    except (KeyError, ValueError, IndexError):
        return None


def find_pseudos(folder: str | Path | None = None) -> tuple[Path, dict[str, Pseudo]]:
    """The pseudopotential of each element that a folder has for PBE.

    Left out are other functionals (PBEsol, LDA, BLYP, TPSS), spin-orbit and GIPAW potentials, and bare 1/r. Of several for
    an element PAW is taken before ultrasoft before norm-conserving, one with suggested cut-offs before one without, and then the
    last name (``psl.1.0.0`` before ``psl.0.1``).

    Parameters
    ----------
    folder : path, optional
        Default: the environment variable ESPRESSO_PSEUDO, else ``/usr/share/espresso/pseudo``.

    Returns
    -------
    folder : Path
        Where they were looked for.
    pseudos : dict
        Element to Pseudo.

    Raises
    ------
    HandoffError
        There is no such folder.
    """
    place = Path(folder or os.environ.get("ESPRESSO_PSEUDO") or SYSTEM_FOLDER).expanduser()
    if not place.is_dir():
        raise HandoffError(f"no folder of pseudopotentials at {place}; name one with --pseudo-dir, or set ESPRESSO_PSEUDO")
    best: dict[str, Pseudo] = {}
    for path in sorted((p for p in place.iterdir() if p.suffix.lower() == ".upf"), key=lambda p: natural(p.name)):
        pseudo = read_pseudo(path)
        if pseudo is None or not pseudo.usable:
            continue
        before = best.get(pseudo.element)
        if before is None or _rank(pseudo) <= _rank(before):
            best[pseudo.element] = pseudo
    return place, best


def pseudos_for(elements: Iterable[str], known: dict[str, Pseudo], place: Path) -> dict[str, Pseudo]:
    """Those of some elements.

    Raises
    ------
    HandoffError
        Elements without one; the message lists them, and those that have one.
    """
    wanted = sorted(set(elements))
    missing = [element for element in wanted if element not in known]
    if missing:
        raise HandoffError(
            f"no PBE pseudopotential for {', '.join(missing)} in {place} (there are: {', '.join(sorted(known)) or 'none'});"
            " give a fuller folder with --pseudo-dir, such as SSSP or pslibrary"
        )
    return {element: known[element] for element in wanted}


def sha_of_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _rank(pseudo: Pseudo) -> tuple[int, bool]:
    return _KINDS[pseudo.kind], pseudo.ecutwfc is None


def _second(path: Path, header: str) -> Pseudo:
    entry = {key: value.strip() for key, _, value in re.findall(r"(\w+)\s*=\s*(['\"])(.*?)\2", header, re.DOTALL)}
    spin_orbit = entry.get("has_so", "false").lower().strip(".").startswith("t")
    return Pseudo(
        path=path,
        element=entry["element"].capitalize(),
        functional=" ".join(entry["functional"].split()),
        kind=entry["pseudo_type"],
        valence=_number(entry["z_valence"]),
        relativistic=spin_orbit or entry.get("relativistic", "") == "full",
        gipaw="gipaw" in path.name.lower(),
        ecutwfc=_number(entry.get("wfc_cutoff", "0")) or None,
        ecutrho=_number(entry.get("rho_cutoff", "0")) or None,
    )


def _first(path: Path, head: str, header: str) -> Pseudo:
    lines = [line.split() for line in header.strip().splitlines()]
    functional = lines[4]
    wave, density = _number(lines[7][0]), _number(lines[7][1])
    return Pseudo(
        path=path,
        element=lines[1][0].capitalize(),
        functional=" ".join(functional[:4]),
        kind=lines[2][0],
        valence=_number(lines[5][0]),
        relativistic="Fully-Relativistic" in head,
        gipaw="gipaw" in path.name.lower(),
        ecutwfc=wave or None,
        ecutrho=density or None,
    )


def _number(text: str) -> float:
    return float(text.lower().replace("d", "e"))
