"""A quasi-Newton optimizer for crystals: BFGS inside a trust radius, and no step uphill is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.optimize.optimize import Optimizer

from .coordinates import CrystalCoordinates

_LARGEST, _SMALLEST = 1.0, 1e-4  # trust radius, in units of `most_move`
_NOISE = 5e-5  # eV; energies of potentials in float32 wobble by so much


class TrustBFGS(Optimizer):
    """BFGS with a trust radius.

    A step is the minimum of the quadratic model inside the trust radius; Powell's damping keeps the model convex. Where the energy
    rises the step is taken back, the radius shrinks, and what was learned stays in the Hessian. So it is as fast as BFGS near a
    minimum and does not run away from a bad start.

    Parameters
    ----------
    coordinates : CrystalCoordinates
    most_move : float, Å
        An atom moves no further in one step.
    most_strain : float
        No component of the log-strain changes by more in one step.
    logfile, trajectory, **options
        As for every ASE optimizer.

    References
    ----------
    Nocedal and Wright, Numerical Optimization (2006), chapters 4, 6 and 18 (damping).
    """

    def __init__(
        self,
        coordinates: CrystalCoordinates,
        most_move: float = 0.3,
        most_strain: float = 0.1,
        logfile: Any = None,
        trajectory: Any = None,
        **options: Any,
    ) -> None:
        self.coordinates = coordinates
        self.most_move, self.most_strain = most_move, most_strain
        self.hessian = np.diag(coordinates.curvatures())
        self.radius = _LARGEST
        self.rejected = 0
        self._best: tuple[np.ndarray, float, np.ndarray] | None = None
        self._predicted = 0.0
        super().__init__(coordinates, None, logfile, trajectory, **options)  # type: ignore[arg-type]

    def step(self, gradient: np.ndarray | None = None) -> None:
        """One step: keep or take back the last one, and go on."""
        crystal = self.coordinates
        x, energy = crystal.get_x(), crystal.get_value()
        gradient = crystal.get_gradient()
        if self._best is not None:
            before, lowest, old = self._best
            self._learn(x - before, gradient - old)
            gain = lowest - energy
            if gain < -_NOISE and gain < 0.1 * self._predicted:
                self.rejected += 1
                self.radius = max(0.3 * self._fraction(x - before), _SMALLEST)
                x, energy, gradient = self._best
            elif gain < 0.25 * self._predicted - _NOISE:
                self.radius = max(0.5 * self.radius, _SMALLEST)
            elif gain > 0.5 * self._predicted:
                self.radius = min(2.0 * self.radius, _LARGEST)
        self._best = (x, energy, gradient)
        values, vectors = np.linalg.eigh(self.hessian)
        inner = vectors.T @ gradient
        dx = -vectors @ (inner / np.maximum(values, 0.05))
        fraction = self._fraction(dx)
        if fraction > self.radius:
            dx = dx * (self.radius / fraction)
        self._predicted = float(-(gradient @ dx) - 0.5 * dx @ self.hessian @ dx)
        crystal.set_x(x + dx)

    def back_to_best(self) -> None:
        """Set the crystal to the state of lowest energy that was kept."""
        if self._best is not None and self.coordinates.get_value() > self._best[1]:
            self.coordinates.set_x(self._best[0])

    def _fraction(self, dx: np.ndarray) -> float:
        """Length of a step in units of the largest allowed."""
        move, strain = self.coordinates.step_size(dx)
        return max(move / self.most_move, strain / self.most_strain)

    def _learn(self, dx: np.ndarray, dg: np.ndarray) -> None:
        if np.abs(dx).max(initial=0.0) < 1e-7:
            return
        h = self.hessian @ dx
        a, b = float(dx @ dg), float(dx @ h)
        if b < 1e-12:
            return
        if a < 0.2 * b:  # Powell's damping: where the landscape curves down, the model stays convex
            part = 0.8 * b / (b - a)
            dg = part * dg + (1 - part) * h
            a = float(dx @ dg)
        self.hessian += np.outer(dg, dg) / a - np.outer(h, h) / b
