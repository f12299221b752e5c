"""Interatomic potentials: calculators whose energies are eV, each with the scale its energies are on."""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from ..devices import resolve_device
from ..errors import MissingPackageError, NoEnergyError, PotentialError

#: Energies as PBE (+U where the Materials Project uses it) gives them, without corrections.
RAW_PBE = "PBE(+U)"
#: The same with the corrections of MaterialsProject2020Compatibility: the scale of the Materials Project's hull.
MP2020 = "MP2020"

# Elements of MPtrj, on which all packaged potentials were trained: H to Pu without Po, At, Rn, Fr, Ra.
_MPTRJ = frozenset(range(1, 95)) - {84, 85, 86, 87, 88}
_INSTALL = {"sevenn": "pip install 'asegen[potentials]'", "chgnet": "pip install 'asegen[potentials]'"}


@dataclass(frozen=True)
class Potential:
    """An interatomic potential and what must be known about its energies.

    Made by :func:`potential`. Can be sent to another process (`portable`), where a named calculator is made anew.
    """

    name: str
    """``"7net-0"``, or the class name and a hash of what a calculator given held when it was first seen."""
    scale: str
    """Energy scale: `RAW_PBE`, `MP2020`, or one of the calculator's own. Energies of different scales are never compared."""
    elements: frozenset[int] | None = None
    """Atomic numbers it knows; None: not said, the calculator itself refuses what it does not know."""
    reach: float | None = None
    """Distance up to which it sees neighbours, Å; None: not said."""
    device: str = "cpu"
    """Where it runs."""
    smooth: bool = True
    """Whether forces are accurate enough for finite differences of 0.01 Å (phonons)."""
    given: BaseCalculator | None = field(default=None, repr=False, compare=False)
    """The calculator itself, where the user gave one."""

    def calculator(self) -> BaseCalculator:
        """The ASE calculator; one per process, so weights are loaded once."""
        return self.given if self.given is not None else _packaged(self.name, self.device)

    @property
    def portable(self) -> bool:
        """Whether it can be sent to another process: not a calculator of the running script, nor one that holds functions."""
        if self.given is None:
            return True
        if type(self.given).__module__ == "__main__":
            return False
        try:
            pickle.dumps(self.given)  # in memory, as workers get it
        except Exception:  # whatever the calculator holds raises what it likes
            return False
        return True

    def refusal(self, atoms: Atoms) -> str | None:
        """Why the potential cannot treat a crystal (an element it does not know), or None."""
        if (atoms.numbers < 1).any():
            return "it holds atoms without an element (number 0)"
        unknown = set(atoms.numbers.tolist()) - self.elements if self.elements is not None else set()
        if unknown:
            return f"{self.name} does not know {', '.join(chemical_symbols[z] for z in sorted(unknown))}"
        return None


@dataclass(frozen=True)
class Evaluation:
    """One call of a potential."""

    energy: float
    """eV, of the whole cell."""
    forces: np.ndarray
    """eV/Å, shape (N, 3)."""
    stress: np.ndarray
    """eV/Å³, Voigt xx yy zz yz xz xy, shape (6,)."""


def potential(which: str | BaseCalculator | Potential = "7net-0", *, scale: str | None = None, device: str | None = None) -> Potential:
    """An interatomic potential.

    Parameters
    ----------
    which : str, ASE calculator or Potential
        ``"7net-0"`` (default), ``"7net-l3i5"`` (more accurate, 2.5 times slower), ``"chgnet"`` (the second opinion; its curvatures are
        too rough for phonons), or any calculator whose energies are eV.
    scale : str, optional
        For a calculator given: on which scale its energies are, ``"PBE(+U)"`` or ``"MP2020"``. Default: a scale of its own, so that
        they are compared only with each other.
    device : str, optional
        For a named potential; default: a GPU if there is one.

    Returns
    -------
    Potential

    Raises
    ------
    PotentialError
        No such potential, or a scale given for one whose scale is known.
    NoEnergyError
        The calculator has no energy, or one that is not in eV (a score, a distance between descriptors).
    MissingPackageError
        The package that holds the weights is not installed.

    Notes
    -----
    Weights come inside the packages ``sevenn`` and ``chgnet``; nothing is downloaded.

    References
    ----------
    SevenNet: Park et al., J. Chem. Theory Comput. 20, 4857 (2024). CHGNet: Deng et al., Nat. Mach. Intell. 5, 1031 (2023).
    """
    if isinstance(which, Potential):
        return which
    if isinstance(which, str):
        name = which.lower()
        if name not in POTENTIALS:
            raise PotentialError(f"no potential {which!r}; known are {', '.join(POTENTIALS)}, or give an ASE calculator")
        if scale is not None:
            raise PotentialError(f"the energies of {name} are on the scale {POTENTIALS[name].scale}; no other can be given")
        found = POTENTIALS[name]
        _require(found.package)
        return Potential(name, found.scale, _MPTRJ, found.reach, str(resolve_device(device)), found.smooth)
    if not hasattr(which, "get_property") and not hasattr(which, "get_potential_energy"):
        raise PotentialError(f"{which!r} is neither the name of a potential ({', '.join(POTENTIALS)}) nor an ASE calculator")
    kind = type(which).__name__
    if "energy" not in getattr(which, "implemented_properties", ["energy"]):
        raise NoEnergyError(f"{kind} has no energy; relaxation, hulls and phonons need one: give a potential such as '7net-0'")
    if not getattr(which, "energy_in_ev", True):
        raise NoEnergyError(f"the energy of {kind} is not in eV; relaxation, hulls and phonons need a potential such as '7net-0'")
    name = f"{kind}-{_identity(which)}"
    return Potential(name, scale or f"own:{name}", given=which, device="cpu")


def evaluate(atoms: Atoms, stress: bool = True) -> Evaluation:
    """Energy, forces and stress of a crystal with its calculator, checked; constraints are left to the caller.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator.
    stress : bool
        Whether the stress is needed; if not, it is not asked for, and zero.

    Raises
    ------
    PotentialError
        The potential fails, or returns something that is not a number.
    """
    try:
        with quiet(), one_thread():
            # the energy whose derivatives the forces are
            energy = float(atoms.get_potential_energy(force_consistent=_has_free_energy(atoms.calc)))
            forces = np.array(atoms.get_forces(apply_constraint=False), dtype=float)
            pull = np.array(atoms.get_stress(apply_constraint=False), dtype=float) if stress else np.zeros(6)
    except Exception as error:
        raise PotentialError(f"the potential failed: {type(error).__name__}: {error}".rstrip(": ")) from error
    if pull.shape == (3, 3):
        pull = full_3x3_to_voigt_6_stress(pull)
    if forces.shape != (len(atoms), 3) or pull.shape != (6,):
        shapes = f"forces of shape {forces.shape} and a stress of shape {pull.shape}"
        raise PotentialError(f"the potential returned {shapes} for {len(atoms)} atoms")
    what = [word for word, value in (("energy", energy), ("forces", forces), ("stress", pull)) if not np.isfinite(value).all()]
    if what:
        raise PotentialError(f"the potential returned no finite number for {' and '.join(what)}")
    return Evaluation(energy, forces, pull)


@contextlib.contextmanager
def quiet() -> Any:
    """Without the warnings and greetings of the packages that hold the potentials."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def one_thread() -> Any:
    """With torch on one thread: a second one gains nothing for crystals, and where cores are busy it costs a factor of forty."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Known:
    package: str
    scale: str
    reach: float
    smooth: bool
    make: Callable[[str], BaseCalculator]


def _sevennet(name: str) -> Callable[[str], BaseCalculator]:
    def make(device: str) -> BaseCalculator:
        from sevenn.calculator import SevenNetCalculator

        calculator: BaseCalculator = SevenNetCalculator(name, device=device)
        return calculator

    return make


def _chgnet(device: str) -> BaseCalculator:
    from chgnet.model.dynamics import CHGNetCalculator

    calculator: BaseCalculator = CHGNetCalculator(use_device=device, on_isolated_atoms="error")
    return calculator


POTENTIALS = {
    "7net-0": _Known("sevenn", RAW_PBE, 5.0, True, _sevennet("7net-0")),
    "7net-l3i5": _Known("sevenn", RAW_PBE, 5.0, True, _sevennet("7net-l3i5")),
    "chgnet": _Known("chgnet", MP2020, 6.0, False, _chgnet),
}
"""Potentials whose weights are in a package."""


@lru_cache(maxsize=4)
def _packaged(name: str, device: str) -> BaseCalculator:
    known = POTENTIALS[name]
    _require(known.package)
    before = torch.get_default_dtype()
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            return known.make(device)
    finally:
        torch.set_default_dtype(before)


def _require(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingPackageError(f"this potential needs the package {package}: {_INSTALL[package]}")


def _has_free_energy(calculator: Any) -> bool:
    return "free_energy" in getattr(calculator, "implemented_properties", ())


# what a calculator was when it was first seen: using one may leave traces in it
_seen: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def _identity(calculator: Any) -> str:
    """Short hash of all that a calculator holds but results; of one that cannot be written down, a name that is never given twice."""
    try:
        if calculator in _seen:
            return _seen[calculator]
        content = {key: value for key, value in vars(calculator).items() if key not in ("atoms", "results")}
        try:
            found = hashlib.sha256(pickle.dumps(content)).hexdigest()[:8]  # in memory only
        except Exception:  # whatever the calculator holds raises what it likes
            found = uuid4().hex[:8]
        _seen[calculator] = found
    except TypeError as error:  # it is not hashable, or has no attributes of its own
        raise PotentialError(f"{type(calculator).__name__} cannot be told from other calculators of its class ({error})") from error
    return found
