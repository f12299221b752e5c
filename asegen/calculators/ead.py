"""How far a crystal is from a target's descriptors, as an ASE calculator: a landscape whose floor is the target structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ..crystals import CrystalBatch
from ..descriptors.ead import EAD, OURS
from ..descriptors.target import Pooling, Target
from ..errors import DescriptorError


class EADCalculator(Calculator):
    """The distance of a crystal's embedded atom density from a target's, with its exact derivatives.

    ::

        energy = target.loss                    ()      mean squared residual of the descriptors, ≥ 0, "eV"
        forces = −∂loss/∂r                      (N, 3)  "eV/Å"
        stress = 1/V sym(∂loss/∂ε)              (6,)    "eV/Å³", Voigt xx yy zz yz xz xy, positions strained along

    The loss has no unit. It is called eV so that ASE's optimizers and dynamics run on it; it is no energy of physics, and a
    minimum of it is no stable structure. It is 0 where every descriptor agrees, whatever the origin, orientation and order of atoms.

    Parameters
    ----------
    target : Target or ase.Atoms
        What is to be rebuilt. Of a crystal the descriptors are computed: ``Target.of(atoms, ead, pooling)``.
    ead : EAD, optional
        Parameters of the descriptor, for a crystal; default: :data:`asegen.descriptors.OURS`.
    pooling : {"sites", "moments", "extrema"}, optional
        How atoms are compared, for a crystal; default: "sites".

    Raises
    ------
    CrystalError
        The target is a structure that is no crystal.
    DescriptorError
        `ead` or `pooling` given beside a `Target`, or an unknown pooling. When it is evaluated: a crystal of other elements.

    Notes
    -----
    The loss is continuous everywhere and smooth but where the pairing of atoms ("sites") or the atom with an extreme value
    ("moments", "extrema") changes. Computed in double precision on the CPU.

    Examples
    --------
    >>> trial.calc = EADCalculator(crystal)
    >>> LBFGS(trial).run(fmax=1e-4)
    """

    # ASE asks for the energy whose derivatives the forces are by the name of free_energy.
    implemented_properties = ["energy", "free_energy", "forces", "stress"]
    discard_results_on_any_change = True
    energy_in_ev = False

    def __init__(self, target: Target | Atoms, ead: EAD | None = None, pooling: Pooling | None = None) -> None:
        if isinstance(target, Atoms):
            target = Target.of(target, OURS if ead is None else ead, "sites" if pooling is None else pooling)
        elif ead is not None or pooling is not None:
            raise DescriptorError("a Target brings its own descriptor and pooling; give ead and pooling with a crystal only")
        self.target = target
        kind = target.ead
        super().__init__(
            pooling=target.pooling,
            orders=list(kind.orders),
            radial=[list(pair) for pair in kind.radial],
            cutoff=kind.cutoff,
            directions=kind.directions,
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """One evaluation with its gradient fills every property."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        self.target.check(self.atoms.numbers)
        batch = CrystalBatch.from_atoms(self.atoms)
        order = np.argsort(self.atoms.numbers, kind="stable")
        frac, cell = batch.frac[order].requires_grad_(), batch.cell.requires_grad_()
        ordered = CrystalBatch(batch.species[order], frac, cell, batch.num_atoms)
        with torch.enable_grad():
            loss = self.target.loss(self.target.ead(ordered).unsqueeze(0))[0]
            along_frac, along_cell = torch.autograd.grad(loss, (frac, cell), allow_unused=True, materialize_grads=True)
        lattice = cell.detach()[0]
        forces = np.empty((len(order), 3))
        forces[order] = -(along_frac @ torch.linalg.inv(lattice).T).numpy()
        strain = (lattice.T @ along_cell[0]).numpy()
        self.results["energy"] = self.results["free_energy"] = float(loss.detach())
        self.results["forces"] = forces
        self.results["stress"] = full_3x3_to_voigt_6_stress(0.5 * (strain + strain.T) / float(torch.linalg.det(lattice).abs()))
