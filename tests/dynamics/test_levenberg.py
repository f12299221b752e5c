"""Second-order steps towards a descriptor."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.spacegroup import crystal

from asegen.crystals import CrystalBatch
from asegen.descriptors.target import Target
from asegen.dynamics.levenberg import _linearised, fit

RUTILE = crystal(["Ti", "O"], [(0, 0, 0), (0.3, 0.3, 0)], spacegroup=136, cellpar=[4.6, 4.6, 2.95, 90, 90, 90])


def ordered(atoms):
    atoms = atoms[np.argsort(atoms.numbers, kind="stable")]
    return torch.from_numpy(atoms.get_scaled_positions()), torch.from_numpy(atoms.cell.array)


@pytest.mark.parametrize("pooling", ["sites", "moments", "extrema"])
def test_residuals_and_their_derivatives(pooling):
    target = Target.of(RUTILE, pooling=pooling)
    frac, cell = ordered(RUTILE)
    torch.manual_seed(0)
    trial = (frac + 0.05 * torch.randn(frac.shape, dtype=frac.dtype))[None]
    residual, jacobian = _linearised(target, trial, cell)
    batch = CrystalBatch(target.numbers, trial[0], cell[None], torch.tensor([6]))
    assert torch.allclose(residual, target.compare(target.ead(batch)[None]))
    direction = torch.randn(6, 3, dtype=frac.dtype)
    step = 1e-6
    plus, minus = (_linearised(target, trial + s * step * direction @ torch.linalg.inv(cell), cell)[0] for s in (1, -1))
    assert torch.allclose((plus - minus)[0] / (2 * step), jacobian[0] @ direction.flatten(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["sites", "moments"])
def test_goes_back_to_the_crystal(pooling):
    target = Target.of(RUTILE, pooling=pooling)
    frac, cell = ordered(RUTILE)
    torch.manual_seed(0)
    trials = frac + 0.02 * torch.randn(4, 6, 3, dtype=frac.dtype)
    before = _linearised(target, trials, cell)[0].square().mean(dim=1).sqrt()
    found = fit(target, trials, cell, steps=60)
    assert (found.rms <= before).all() and found.rms.min() < 1e-3
    assert found.evaluations <= 61


def test_trials_do_not_know_of_each_other():
    target = Target.of(RUTILE)
    frac, cell = ordered(RUTILE)
    torch.manual_seed(0)
    trials = frac + 0.03 * torch.randn(3, 6, 3, dtype=frac.dtype)
    together = fit(target, trials, cell, steps=5, solved=0.0)
    for k in range(3):
        assert torch.allclose(fit(target, trials[k : k + 1], cell, steps=5, solved=0.0).frac[0], together.frac[k], atol=1e-8)


def test_steps_are_bounded_and_never_uphill():
    target = Target.of(bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1))
    cell = torch.from_numpy((bulk("NaCl", "rocksalt", a=5.6) * (2, 1, 1)).cell.array)
    trials = torch.rand(8, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = [fit(target, trials, cell, steps=k, longest=0.1, solved=0.0) for k in (0, 1, 6)]
    assert (loss[1].rms <= loss[0].rms).all() and (loss[2].rms <= loss[1].rms).all()
    moved = ((loss[1].frac - trials) @ cell).norm(dim=2)
    assert moved.max() <= 0.1 + 1e-9


def test_no_step_ever_goes_uphill():
    """Long steps from random positions overshoot; those are taken back."""
    target = Target.of(RUTILE)
    cell = torch.from_numpy(RUTILE.cell.array)
    trials = torch.rand(12, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rms = torch.stack([fit(target, trials, cell, steps=k, longest=1.0, solved=0.0).rms for k in range(12)])
    assert (rms.diff(dim=0) <= 0).all()
    assert (rms.diff(dim=0) == 0).any()  # some were taken back
