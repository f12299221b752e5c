"""Crystals into the files that other people's scripts read; a file gets its name only when it is complete."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from ase import Atoms

from ..checkpoint import replacing
from ..errors import DataError

Info = dict[str, Any]
KNOWN = ".extxyz, .xyz, .cif, .csv, .json, .jsonl (these also with .gz), .db, .traj, .zip, .pt, .npz, or a name without suffix for a folder"
_RESERVED = {"cif", "cell", "species", "frac_coords", "structure", "sites", "lattice", "Lattice", "Properties", "pbc"}


def write_crystals(crystals: Sequence[Atoms], path: str | Path, names: Sequence[str] | None = None, samples: int = 1) -> None:
    """Write crystals in the format that the suffix names; :func:`asegen.datasets.read_rows` reads each of them.

    Numbers and text in ``atoms.info`` are written where the format has room: ``.extxyz``, ``.db``, ``.traj``, ``.csv``,
    ``.json``, ``.jsonl``; entries named as a part of a format (``cell``, ``sites``, ``Lattice``, …) are left out. Calculators
    and constraints are not written.

    Parameters
    ----------
    crystals : sequence of Atoms
    path : str or Path
        - ``.extxyz``, ``.xyz``, ``.db``, ``.traj``: by ASE (extxyz has no room for line breaks, quotes and odd keys);
        - ``.cif``: one crystal; ``.zip``: a CIF each; no suffix, or a slash at the end: a new folder with a CIF each;
        - ``.csv``: ``material_id``, ``cif`` and a column for each entry of ``info``, as CDVAE and its descendants read;
        - ``.json``: a list of pymatgen structures; ``.jsonl``: ``cell, species, frac_coords`` per line;
        - ``.pt``, ``.npz``: tensors as CDVAE saves them, float32 and int64, with a leading dimension of evaluations.

        Text formats may end in ``.gz``. A file of that name is replaced.
    names : sequence of str, optional
        One for each crystal. Without them ``info["material_id"]`` is used if there is one; else formats that must have names count:
        ``0000``, ``0001``, …. Tensors keep none. Names of files are made safe and unique; archives and folders are
        read in the order of their names.
    samples : int
        For tensors: `crystals` are this many evaluations of the same crystals, one evaluation after the other.

    Raises
    ------
    DataError
        An unknown suffix, a structure that is not a crystal, a folder that exists, or names or samples that do not fit.
    """
    target = Path(path)
    kind = kind_of(path)
    packed = target.name.lower().endswith(".gz")
    if names is not None and len(names) != len(crystals):
        raise DataError(f"{len(names)} names for {len(crystals)} crystals")
    if samples != 1 and kind not in ("pt", "npz"):
        raise DataError(f"{target}: only .pt and .npz keep several evaluations apart")
    if kind == "cif" and len(crystals) != 1:
        raise DataError(f"{target}: a .cif holds one crystal, not {len(crystals)}; write a .zip or a folder")
    plain = [_plain(atoms, number) for number, atoms in enumerate(crystals)]
    if names is not None:
        for atoms, name in zip(plain, names, strict=True):
            atoms.info["material_id"] = str(name)
    if kind == "folder":
        _folder(plain, target)
    elif kind == "db":
        _database(plain, target)
    else:
        with replacing(target) as stream:
            if packed:
                # no time and no name inside: equal crystals give equal files
                with gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as inner:
                    _WRITERS[kind](plain, inner, samples)  # type: ignore[arg-type]
            else:
                _WRITERS[kind](plain, stream, samples)


def kind_of(path: str | Path) -> str:
    """The format that a name asks for.

    Raises
    ------
    DataError
        The suffix is unknown; the message names the known ones.
    """
    name = Path(path).name.lower()
    if str(path).endswith(("/", os.sep)) or not Path(name).suffix:
        return "folder"
    kind = Path(name.removesuffix(".gz")).suffix.removeprefix(".")
    if kind == "db" and not name.endswith(".gz"):
        return kind
    if kind not in _WRITERS or (name.endswith(".gz") and kind not in _TEXT):
        raise DataError(f"{path}: unknown kind of file; known are {KNOWN}")
    return kind


def cif_text(atoms: Atoms, name: str = "crystal") -> str:
    """CIF without symmetry (P 1), with the entries that pymatgen writes."""
    cell, frac = right_handed(atoms)
    lengths, angles = _parameters(cell)
    symbols = atoms.get_chemical_symbols()
    counts = {symbol: symbols.count(symbol) for symbol in dict.fromkeys(symbols)}
    divisor = int(np.gcd.reduce(list(counts.values())))
    lines = [f"data_{_safe(name)}", "_symmetry_space_group_name_H-M   'P 1'"]
    lines += [f"_cell_length_{axis}   {value:.8f}" for axis, value in zip("abc", lengths, strict=True)]
    lines += [f"_cell_angle_{axis}   {value:.8f}" for axis, value in zip(("alpha", "beta", "gamma"), angles, strict=True)]
    lines += ["_symmetry_Int_Tables_number   1"]
    lines += ["_chemical_formula_structural   " + "".join(f"{s}{n // divisor if n > divisor else ''}" for s, n in counts.items())]
    lines += ["_chemical_formula_sum   '" + " ".join(f"{s}{n}" for s, n in counts.items()) + "'"]
    lines += [f"_cell_volume   {np.linalg.det(cell):.8f}", f"_cell_formula_units_Z   {divisor}"]
    lines += ["loop_", " _symmetry_equiv_pos_site_id", " _symmetry_equiv_pos_as_xyz", "  1  'x, y, z'", "loop_"]
    columns = ("type_symbol", "label", "symmetry_multiplicity", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += [f" _atom_site_{column}" for column in columns]
    for number, (symbol, (x, y, z)) in enumerate(zip(symbols, frac, strict=True)):
        lines.append(f"  {symbol}  {symbol}{number}  1  {x:.8f}  {y:.8f}  {z:.8f}  1")
    return "\n".join(lines) + "\n"


def right_handed(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Cell of positive volume and fractional coordinates in [0, 1).

    Lengths and angles cannot say that a cell is left-handed: read back, the crystal would be its mirror image.
    """
    sign = 1.0 if np.linalg.det(atoms.cell.array) > 0 else -1.0
    frac = (sign * atoms.get_scaled_positions(wrap=False)) % 1.0
    return sign * atoms.cell.array, np.where(frac >= 1.0, 0.0, frac)


def _plain(atoms: Atoms, number: int) -> Atoms:
    """The crystal alone: no calculator, which would be asked for results, and no constraint."""
    if len(atoms) == 0 or atoms.cell.rank < 3 or not atoms.pbc.all():
        raise DataError(f"structure {number} is not a crystal: it needs atoms, and a cell that is periodic in three directions")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise DataError(f"structure {number} has a number that is not finite")
    info: Info = {}
    for key, value in atoms.info.items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, (bool, int, float, str)) and isinstance(key, str) and key not in _RESERVED:
            info[key] = value
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, pbc=True, info=info)


def _parameters(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from ase.geometry import cell_to_cellpar

    found = cell_to_cellpar(cell)
    return found[:3], found[3:]


def _names(crystals: Sequence[Atoms]) -> list[str]:
    width = max(4, len(str(len(crystals) - 1)))
    return [str(atoms.info.get("material_id", f"{number:0{width}}")) for number, atoms in enumerate(crystals)]


def _entries(atoms: Atoms) -> Info:
    """What stands beside the structure; JSON has no word for numbers that are not finite."""
    kept = {k: v for k, v in atoms.info.items() if k != "material_id"}
    return {k: v for k, v in kept.items() if not isinstance(v, float) or np.isfinite(v)}


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII).strip(".") or "crystal"


def _cif_files(crystals: Sequence[Atoms]) -> dict[str, str]:
    files: dict[str, str] = {}
    taken: set[str] = set()
    for atoms, name in zip(crystals, _names(crystals), strict=True):
        stem = unique = _safe(re.sub(r"\.cif$", "", name, flags=re.IGNORECASE))
        count = 1
        while unique.lower() in taken:  # many disks do not tell a.cif from A.cif
            count += 1
            unique = f"{stem}-{count}"
        taken.add(unique.lower())
        files[f"{unique}.cif"] = cif_text(atoms, unique)
    return files


def _folder(crystals: Sequence[Atoms], folder: Path) -> None:
    if folder.exists():
        raise DataError(f"{folder} exists already; remove it or give another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, text in _cif_files(crystals).items():
            (work / name).write_text(text, encoding="utf-8")
        work.chmod(0o755)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _database(crystals: Sequence[Atoms], path: Path) -> None:
    from ase.db import connect
    from ase.db.core import check

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
        file = Path(work) / "crystals.db"
        with connect(str(file), append=False) as database, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for atoms in crystals:
                pairs: Info = {}
                data: Info = {}
                for key, value in atoms.info.items():
                    try:
                        check({key: value})
                        pairs[key] = value
                    except (ValueError, AssertionError):  # a key that ASE uses itself, or text that looks like a number
                        data[key] = value
                database.write(atoms, key_value_pairs=pairs, data={"info": data} if data else {})
        file.touch()
        file.chmod(0o644)
        os.replace(file, path)


def _extxyz(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    from ase.io.extxyz import write_xyz

    text = io.StringIO()
    for atoms in crystals:
        atoms.info = {key: _one_line(value) for key, value in atoms.info.items() if re.fullmatch(r"[^\W\d][\w .-]*", key)}
        write_xyz(text, atoms)
    stream.write(text.getvalue().encode())


_SIGNS = str.maketrans({'"': "’", "'": "’", "\\": "/", "=": ":"})


def _one_line(value: Any) -> Any:
    """Text without the signs (line breaks, quotes, =, brackets at the ends) after which ASE misreads a comment line."""
    if not isinstance(value, str):
        return value
    return re.sub(r"\s+", " ", value.translate(_SIGNS)).strip("[]{} ") or "-"


def _traj(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    import ase.io

    if crystals:
        ase.io.write(stream, list(crystals), format="traj")


def _cif(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    stream.write(cif_text(crystals[0], _names(crystals)[0]).encode())


def _zip(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in _cif_files(crystals).items():
            # a fixed date: equal crystals give equal files
            archive.writestr(zipfile.ZipInfo(name), text, compress_type=zipfile.ZIP_DEFLATED)


def _csv(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    extra = dict.fromkeys(key for atoms in crystals for key in atoms.info if key != "material_id")
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ["material_id", "cif", *extra])
    table.writeheader()
    for atoms, name in zip(crystals, _names(crystals), strict=True):
        numbers = {k: int(v) if isinstance(v, bool) else v for k, v in atoms.info.items()}
        table.writerow({**numbers, "material_id": name, "cif": cif_text(atoms, name)})
    stream.write(text.getvalue().encode())


def _json(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    found = [_structure(atoms, name) for atoms, name in zip(crystals, _names(crystals), strict=True)]
    stream.write(json.dumps(found, ensure_ascii=False).encode())


def _structure(atoms: Atoms, name: str) -> Info:
    """What ``Structure.as_dict()`` of pymatgen gives."""
    lengths, angles = _parameters(atoms.cell.array)
    named = dict(zip(("a", "b", "c", "alpha", "beta", "gamma"), map(float, (*lengths, *angles)), strict=True))
    sites = []
    for symbol, abc, xyz in zip(atoms.get_chemical_symbols(), atoms.get_scaled_positions(wrap=False), atoms.positions, strict=True):
        species = [{"element": symbol, "occu": 1}]
        sites.append({"species": species, "abc": abc.tolist(), "properties": {}, "label": symbol, "xyz": xyz.tolist()})
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Structure",
        "charge": 0,
        "lattice": {"matrix": atoms.cell.array.tolist(), "pbc": [True, True, True], **named, "volume": float(atoms.get_volume())},
        "properties": {"material_id": name, **_entries(atoms)},
        "sites": sites,
    }


def _jsonl(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    for atoms, name in zip(crystals, _names(crystals), strict=True):
        frac = atoms.get_scaled_positions(wrap=False).tolist()
        line = {"material_id": name, "cell": atoms.cell.array.tolist(), "species": atoms.get_chemical_symbols(), "frac_coords": frac}
        stream.write((json.dumps({**line, **_entries(atoms)}, ensure_ascii=False) + "\n").encode())


def _arrays(crystals: Sequence[Atoms], samples: int) -> dict[str, np.ndarray]:
    if samples < 1 or len(crystals) % samples:
        raise DataError(f"{len(crystals)} crystals are not {samples} evaluations of equally many")
    cells = [right_handed(atoms) for atoms in crystals]
    counts = np.array([len(atoms) for atoms in crystals], dtype=np.int64).reshape(samples, -1)
    if len(set(counts.sum(1).tolist())) > 1:
        raise DataError("evaluations with different numbers of atoms do not fit into one tensor; write a file for each")
    parameters = np.array([np.concatenate(_parameters(cell)) for cell, _ in cells], dtype=np.float32).reshape(samples, -1, 6)
    frac = np.concatenate([np.zeros((0, 3)), *(frac for _, frac in cells)]).astype(np.float32)
    numbers = np.concatenate([np.zeros(0, dtype=np.int64), *(atoms.numbers for atoms in crystals)]).astype(np.int64)
    return {
        # a coordinate just below 1 is 1 in single precision
        "frac_coords": np.where(frac >= 1.0, np.float32(0), frac).reshape(samples, -1, 3) if len(frac) else frac.reshape(samples, 0, 3),
        "atom_types": numbers.reshape(samples, -1) if len(numbers) else numbers.reshape(samples, 0),
        "lengths": np.ascontiguousarray(parameters[..., :3]),
        "angles": np.ascontiguousarray(parameters[..., 3:]),
        "num_atoms": counts,
    }


def _pt(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    import torch

    torch.save({key: torch.from_numpy(array) for key, array in _arrays(crystals, samples).items()}, stream)


def _npz(crystals: Sequence[Atoms], stream: BinaryIO, samples: int) -> None:
    np.savez_compressed(stream, **_arrays(crystals, samples))  # type: ignore[arg-type]


_TEXT = ("extxyz", "xyz", "cif", "csv", "json", "jsonl")
_WRITERS: dict[str, Callable[[Sequence[Atoms], BinaryIO, int], None]] = {
    "extxyz": _extxyz,
    "xyz": _extxyz,
    "traj": _traj,
    "cif": _cif,
    "zip": _zip,
    "csv": _csv,
    "json": _json,
    "jsonl": _jsonl,
    "pt": _pt,
    "npz": _npz,
}
