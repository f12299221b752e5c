"""Score models as ASE calculators: forces are the score of the positions, stress the score of the lattice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ..checkpoint import Checkpoint, load_checkpoint
from ..crystals import CrystalBatch
from ..devices import inference, resolve_device
from ..errors import CheckpointError, NoEnergyError
from ..kernels import Schedule
from ..lattice import strain_gradient
from ..prior import log_gradient_of, reference_volume

_NO_ENERGY = (
    "a score model has no energy, its forces are not the gradient of one: give optimizers asegen.ScoreFilter(atoms) instead of the atoms"
    " or FrechetCellFilter, run molecular dynamics with logfile=None or as asegen.AnnealedLangevin, and take energies from an interatomic"
    " potential"
)
#: Noise level unless asked otherwise, Å: rattled atoms come back at it, at the smallest level not always (docs/conventions.md).
_SIGMA = 0.1


class ScoreCalculator(Calculator):
    """Score of a trained model at one noise level, as forces and stress.

    With the density p_σ of crystals blurred at level σ::

        forces = kT ∂log p_σ / ∂r                 (N, 3)  eV/Å
        stress = −kT/V sym(∂log p_σ / ∂ε)         (6,)    eV/Å³, Voigt xx yy zz yz xz xy, positions strained along

    ``results["element_logits"]`` holds logits of the elements, shape (N, 119). There is no energy.

    Parameters
    ----------
    checkpoint : str, Path or Checkpoint
        Name of a packaged checkpoint, or a file.
    sigma : float, optional
        Noise level, Å; default: 0.1, or the nearest that the checkpoint has. Change it with ``calc.set(sigma=...)``.
    kT : float
        Pseudo-energy that turns scores into ASE's units, eV.
    device : str, optional
        ``"cpu"``, ``"cuda"``; default: a GPU if there is one.

    Raises
    ------
    CheckpointError
        No such checkpoint, or damaged.

    Examples
    --------
    >>> atoms = random_crystal("SrTiO3", seed=0)
    >>> atoms.calc = ScoreCalculator("default", sigma=0.5)
    >>> atoms.get_forces().shape
    (5, 3)
    """

    implemented_properties = ["forces", "stress"]
    discard_results_on_any_change = True

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint = "default",
        sigma: float | None = None,
        kT: float = 1.0,
        device: str | None = None,
    ) -> None:
        self._device = resolve_device(device)
        self.checkpoint = load_checkpoint(checkpoint, self._device)
        schedule = self.checkpoint.system.schedule
        level = min(max(_SIGMA, schedule.sigma_min), schedule.sigma_max) if sigma is None else float(sigma)
        super().__init__(sigma=level, kT=float(kT), checkpoint=self.checkpoint.name, checkpoint_hash=self.checkpoint.hash)

    @property
    def schedule(self) -> Schedule:
        """Noise schedule of the checkpoint."""
        return self.checkpoint.system.schedule

    def set(self, **parameters: Any) -> dict[str, Any]:
        """Change ``sigma`` or ``kT``; results of the old values are thrown away."""
        if "sigma" in parameters and not parameters["sigma"] > 0:
            raise ValueError(f"sigma = {parameters['sigma']} must be a positive noise level in Å")
        if "kT" in parameters and not parameters["kT"] > 0:
            raise ValueError(f"kT = {parameters['kT']} must be a positive energy in eV")
        return super().set(**parameters)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As in ASE; an energy raises :class:`asegen.errors.NoEnergyError`."""
        if name in ("energy", "free_energy", "energies") and name not in self.implemented_properties:
            raise NoEnergyError(_NO_ENERGY)
        return super().get_property(name, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("forces",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """One network call fills every property."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.checkpoint.check_numbers(self.atoms.numbers)
        batch = CrystalBatch.from_atoms(self.atoms).to(self._device)
        volume = volume_of(self.atoms, batch)
        sigma = torch.tensor([self.parameters["sigma"]], dtype=torch.float64, device=batch.cell.device)
        system = self.checkpoint.system
        with inference(self._device):
            scores = system.scores(batch, system.schedule.time(sigma), volume)
        kT = self.parameters["kT"]
        forces = scores.position @ torch.linalg.inv(batch.cell[0]).T
        strain = strain_gradient(log_gradient_of(scores.lattice), batch.cell)[0]
        stress = (-kT / batch.volume[0] * strain).cpu().numpy()
        self.results["forces"] = (kT * forces).cpu().numpy()
        self.results["stress"] = full_3x3_to_voigt_6_stress(stress)
        self.results["element_logits"] = scores.elements.double().cpu().numpy()


class EnergyScoreCalculator(ScoreCalculator):
    """Calculator of an energy-parameterised score model: the score is minus the gradient of a scalar.

    ``energy = −kT log p_σ`` up to a constant, in eV of pseudo-energy; forces and stress are its exact derivatives, so line
    searches and Metropolis steps work. It is no physical energy: it ranks crystals by how likely they are at level σ.

    Raises
    ------
    CheckpointError
        The checkpoint's network has no energy (train one with ``network = "energy"``).
    """

    implemented_properties = ["energy", "forces", "stress"]
    energy_in_ev = False  # a log-probability

    def __init__(self, checkpoint: str | Path | Checkpoint, sigma: float | None = None, kT: float = 1.0, device: str | None = None) -> None:
        super().__init__(checkpoint, sigma, kT, device)
        if not hasattr(self.checkpoint.system.network, "energy"):
            raise CheckpointError(f"checkpoint '{self.checkpoint.name}' has no energy; use ScoreCalculator, or train a network 'energy'")

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        batch = CrystalBatch.from_atoms(self.atoms).to(self._device)
        sigma = torch.tensor([self.parameters["sigma"]], dtype=torch.float64, device=batch.cell.device)
        system = self.checkpoint.system
        with inference(self._device):
            energy = system.energy(batch, system.schedule.time(sigma), volume_of(self.atoms, batch))
        self.results["energy"] = float(self.parameters["kT"] * energy[0])


def volume_of(atoms: Atoms, batch: CrystalBatch) -> torch.Tensor:
    """Reference volume of one crystal: ``info["reference_volume"]`` (de novo) or that of its elements, shape (1,), Å³."""
    given = atoms.info.get("reference_volume")
    if given is not None:
        return torch.tensor([float(given)], dtype=torch.float64, device=batch.cell.device)
    return reference_volume(batch.species, batch.index, 1)


def strain_score(atoms: Atoms, kT: float) -> np.ndarray:
    """∂log p/∂ε from the stress of any calculator that keeps the contract, symmetric, shape (3, 3)."""
    return -atoms.get_volume() / kT * atoms.get_stress(voigt=False)
