"""Crystals from dicts of tensors, as CDVAE, DiffCSP and their descendants save them; no code of the file is run.

Such a file holds ``frac_coords (n, 3)``, ``atom_types (n,)``, ``lengths (b, 3)`` in Å, ``angles (b, 3)`` in degrees and
``num_atoms (b,)``, of b crystals with n atoms together; each may have a leading dimension of evaluations. Atom types
are atomic numbers; where they have one more dimension (one-hot, or logits), the largest entry counts, the first being
hydrogen. The true structures, if kept, are in ``input_data_batch``.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from .rows import NoCrystals, Row, Source, checked_row, reason_of

KEYS = ("frac_coords", "atom_types", "lengths", "angles", "num_atoms")
_TRUTH = "input_data_batch"


class NoTruth(DataError):
    """A file that keeps no true structures beside the generated ones."""


class Inert:
    """Stands for an object of any class that a file asks for: keeps its state, does nothing.

    PyTorch's unpickler calls only what it was allowed to call, by comparison. Files of PyTorch Geometric also call an
    *object* (a getter that makes the class of a batch); being equal to this class, an inert object may be called, and
    returns another inert object.
    """

    __slots__ = ("content",)

    def __new__(cls, *args: Any, **kwargs: Any) -> Inert:
        made = super().__new__(cls)
        made.content = {}
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Inert:
        return Inert()

    def __eq__(self, other: object) -> bool:
        return other is self or other is Inert

    def __hash__(self) -> int:
        return id(self)

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.content.update(part)

    content: dict[Any, Any]


def tensor_rows(source: Source, truth: bool = False) -> Iterator[Row]:
    """Rows of a ``.pt``, ``.pth`` or ``.npz`` file: all of the first evaluation, then those of the second, …

    Parameters
    ----------
    source : Source
    truth : bool
        The true structures instead of the generated ones.

    Raises
    ------
    DataError
        The file cannot be read without running code from it, or its tensors disagree in shape.
    NoCrystals
        It holds something else.
    NoTruth
        It has no true structures.
    """
    document = _load(source)
    if truth:
        if not isinstance(document, Mapping) or _TRUTH not in document:
            raise NoTruth(f"{source.where} holds no true structures ('{_TRUTH}')")
        document = _holder(document[_TRUTH])
    if not isinstance(document, Mapping) or not set(KEYS) <= set(document):
        what = ", ".join(map(str, list(document)[:10])) if isinstance(document, Mapping) else "an object of another kind"
        raise NoCrystals(f"{source.where} does not hold crystals as tensors named {', '.join(KEYS)} (found: {what or 'nothing'})")
    evaluations = _evaluations(document, source.where)
    for sample, tensors in enumerate(evaluations):
        tail = f" of evaluation {sample + 1}" if len(evaluations) > 1 else ""
        cells, reasons = cells_of(tensors["lengths"], tensors["angles"])
        last = np.cumsum(tensors["num_atoms"])
        for crystal, (cell, reason, end, count) in enumerate(zip(cells, reasons, last, tensors["num_atoms"], strict=True), start=1):
            name = f"{source.name} #{crystal}{tail}"
            atoms = slice(end - count, end)
            numbers, frac = tensors["atom_types"][atoms], tensors["frac_coords"][atoms]
            yield checked_row(Row(name, cell, frac, numbers, error=reason, sample=sample))


def cells_of(lengths: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Cells from lengths (b, 3) in Å and angles (b, 3) in degrees, in ASE's orientation: a along x, b in the xy plane.

    Returns
    -------
    cells : ndarray, shape (b, 3, 3)
    reasons : list of str
        Why there is no cell of these lengths and angles; empty for a good one.
    """
    with np.errstate(all="ignore"):
        alpha, beta, gamma = np.cos(np.deg2rad(angles)).T
        sine = np.sqrt(1.0 - gamma**2)
        slant = (alpha - beta * gamma) / sine
        height = 1.0 - beta**2 - slant**2
        zero = np.zeros_like(alpha)
        rows = [[zero + 1.0, zero, zero], [gamma, sine, zero], [beta, slant, np.sqrt(height)]]
        cells = np.array(rows).transpose(2, 0, 1) * lengths[:, :, None]
        kinds = [
            (~np.isfinite(lengths).all(1) | ~np.isfinite(angles).all(1), "a length or angle that is not finite"),
            ((lengths <= 0).any(1), "a length that is not positive"),
            (((angles <= 0) | (angles >= 180)).any(1) | ~(height > 0), "angles that enclose no cell"),
        ]
    return cells, [next((words for bad, words in kinds if bad[k]), "") for k in range(len(lengths))]


def _evaluations(document: Mapping[Any, Any], name: str) -> list[dict[str, np.ndarray]]:
    arrays = {key: _array(document[key], f"{name}: {key}") for key in KEYS}
    single = {"frac_coords": 2, "lengths": 2, "angles": 2, "num_atoms": 1}
    shapes = ", ".join(f"{key} {arrays[key].shape}" for key in KEYS)
    wrong = DataError(f"{name}: the tensors do not belong together: {shapes}")
    if any(arrays[key].ndim not in (n, n + 1) for key, n in single.items()) or arrays["frac_coords"].ndim < 2:
        raise wrong
    parts = {key: list(arrays[key]) if arrays[key].ndim > n else [arrays[key]] for key, n in single.items()}
    types, atoms = arrays["atom_types"], arrays["frac_coords"].shape[-2]
    if types.ndim > 1 and types.shape[-1] == 1 != atoms:
        types = types[..., 0]
    # (k, n) are k evaluations of atomic numbers, (n, kinds) one evaluation of one-hot vectors or logits
    whole_numbers = types.ndim == 1 or (types.ndim == 2 and types.shape[1] == atoms and len(types) in (1, len(parts["frac_coords"])))
    if not whole_numbers:
        types = types.argmax(-1) + 1
    parts["atom_types"] = list(types) if types.ndim == 2 else [types]
    count = max(map(len, parts.values()))
    if any(len(part) not in (1, count) for part in parts.values()):
        raise wrong
    found = []
    for k in range(count):
        one = {key: part[k if len(part) > 1 else 0] for key, part in parts.items()}
        one["num_atoms"], one["atom_types"] = _integers(one["num_atoms"]), _integers(one["atom_types"])
        crystals = len(one["num_atoms"])
        if one["lengths"].shape != (crystals, 3) or one["angles"].shape != (crystals, 3) or one["num_atoms"].min(initial=0) < 0:
            raise wrong
        if one["frac_coords"].shape != (one["num_atoms"].sum(), 3) or one["atom_types"].shape != one["frac_coords"].shape[:1]:
            raise wrong
        found.append(one)
    return found


def _integers(values: np.ndarray) -> np.ndarray:
    # what is not finite becomes 0, which is no element
    return np.where(np.isfinite(values), np.rint(values), 0).astype(np.int64)


def _array(value: Any, name: str) -> np.ndarray:
    import torch

    try:
        array = value.detach().double().numpy() if isinstance(value, torch.Tensor) else np.asarray(value, dtype=float)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} is not a tensor of numbers: {reason_of(error)}") from error
    return array


def _holder(value: Any, depth: int = 5) -> Any:
    """The dict that holds the tensors, inside a batch of PyTorch Geometric of any version."""
    content = value.content if isinstance(value, Inert) else value
    if not isinstance(content, Mapping) or set(KEYS) <= set(content) or depth == 0:
        return content
    inner = [_holder(v, depth - 1) for v in content.values() if isinstance(v, (Inert, Mapping))]
    return next((v for v in inner if isinstance(v, Mapping) and set(KEYS) <= set(v)), content)


def _load(source: Source) -> Any:
    with source.binary() as raw:
        stream: BinaryIO = io.BytesIO(raw.read())
    try:
        if source.name.lower().removesuffix(".gz").endswith(".npz"):
            with np.load(stream, allow_pickle=False) as arrays:
                return {key: arrays[key] if key in KEYS else None for key in arrays.files}
        return _load_inert(stream)
    except Exception as error:  # zip, pickle and shape errors of a file that anybody may have made
        # the error beneath, and only what it says: PyTorch's own text goes on to recommend running the code
        beneath = error.__context__ if isinstance(error, UnpicklingError) and error.__context__ is not None else error
        reason = re.split(r" (?:Please use|In PyTorch|This is an internal)\b", reason_of(beneath))[0]
        raise DataError(f"{source.where} cannot be read without running code from it, or is damaged: {reason}") from error


def _load_inert(stream: BinaryIO) -> Any:
    from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

    # packages that are imported in this process (torch_geometric) allow classes of their own, which would then be built
    others = get_safe_globals()
    clear_safe_globals()
    try:
        return _load_with_placeholders(stream)
    finally:
        clear_safe_globals()
        add_safe_globals(others)


def _load_with_placeholders(stream: BinaryIO) -> Any:
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        unknown = get_unsafe_globals_in_checkpoint(stream)
    except ValueError:  # written before PyTorch 1.6: the names cannot be listed, so what is unknown is refused
        unknown = []
    stream.seek(0)
    known = _numpy_globals()
    allowed = [(known.get(name, _PlainDict if name.lower().endswith("dict") else Inert), name) for name in unknown]
    # types of dtypes are never named in a file, but their objects are built
    allowed += [(kind, name) for name, kind in known.items() if name.startswith("numpy.dtypes.")]
    with safe_globals(allowed), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")
        return torch.load(stream, map_location="cpu", weights_only=True)


class _PlainDict:
    """Stands for defaultdict and other subclasses of dict; the unpickler puts items only into objects of these very classes."""

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict()


def _numpy_globals() -> dict[str, Any]:
    from numpy._core import multiarray

    made: dict[str, Any] = {"numpy.ndarray": np.ndarray, "numpy.dtype": np.dtype}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        made[f"{module}._reconstruct"] = multiarray._reconstruct  # type: ignore[attr-defined]
        made[f"{module}.scalar"] = multiarray.scalar  # type: ignore[attr-defined]
    kinds = [kind for kind in vars(np.dtypes).values() if isinstance(kind, type) and issubclass(kind, np.dtype)]
    return made | {f"numpy.dtypes.{kind.__name__}": kind for kind in kinds}
