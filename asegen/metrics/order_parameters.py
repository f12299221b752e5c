"""Order parameters of local environments: how much n neighbours look like an octahedron, a tetrahedron, a planar triangle, …

The order parameters and their sharpness are those of Zimmermann & Jain, RSC Adv. 2020, 10, 6063 (``CrystalNNFingerprint``, preset
"ops", in matminer), computed for many environments of one coordination number at a time. Most of them put each neighbour j in turn
at the north pole and each other neighbour k on the prime meridian, and ask whether the remaining neighbours m lie at the polar
angles and azimuths of the motif; the best choice of j and k counts.

All angles enter as fractions of 180°, widths as inverse widths of Gaussians over that fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

Array = np.ndarray

#: Names of the order parameters of each coordination number, in the order of the columns that `order_parameters` returns.
ORDER_PARAMETERS: dict[int, tuple[str, ...]] = {
    1: ("sgl_bd",),
    2: ("L-shaped", "water-like", "bent 120 degrees", "bent 150 degrees", "linear"),
    3: ("trigonal planar", "trigonal non-coplanar", "T-shaped"),
    4: ("square co-planar", "tetrahedral", "rectangular see-saw-like", "see-saw-like", "trigonal pyramidal"),
    5: ("pentagonal planar", "square pyramidal", "trigonal bipyramidal"),
    6: ("hexagonal planar", "octahedral", "pentagonal pyramidal"),
    7: ("hexagonal pyramidal", "pentagonal bipyramidal"),
    8: ("body-centered cubic", "hexagonal bipyramidal"),
    9: ("q2", "q4", "q6"),
    10: ("q2", "q4", "q6"),
    11: ("q2", "q4", "q6"),
    12: ("cuboctahedral", "q2", "q4", "q6"),
}

_TETRAHEDRAL = 0.6081734479693927  # 109.47° / 180°
_ON_AXIS = 1e-12  # a neighbour this close to the polar axis has no azimuth
_TIE = 1e-12  # neighbours whose strengths differ by less, which is by rounding errors, are equivalent by symmetry
_BLOCK = 200_000  # (j, k, m) triples worked on at a time: the arrays stay in the processor's cache


class _Environments:
    """Angles of all neighbours of many sites, seen from every choice of north pole j and prime meridian k."""

    def __init__(self, vectors: Array) -> None:
        unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
        count = unit.shape[1]
        cosine = np.clip(unit @ np.swapaxes(unit, 1, 2), -1.0, 1.0)
        across = unit[:, None, :, :] - cosine[..., None] * unit[:, :, None, :]
        length = np.linalg.norm(across, axis=-1)
        self.other = ~np.eye(count, dtype=bool)
        self.theta = np.arccos(cosine)
        """Polar angle of neighbour k with j at the north pole, radians, shape (b, j, k)."""
        self.fraction = self.theta / math.pi
        self.off_axis = (length >= _ON_AXIS) & self.other
        """Whether neighbour k has an azimuth when j is at the north pole, shape (b, j, k)."""
        direction = across / np.where(self.off_axis, length, np.inf)[..., None]
        self.azimuth = np.clip(direction @ np.swapaxes(direction, 2, 3), -1.0, 1.0)
        """Cosine of the azimuth of neighbour m from the meridian of k, shape (b, j, k, m)."""


def order_parameters(vectors: Array, strengths: Array | None = None) -> Array:
    """Order parameters of environments with the same coordination number.

    Parameters
    ----------
    vectors : ndarray, shape (b, cn, 3), Å
        From each of b sites to its cn neighbours.
    strengths : ndarray, shape (b, cn), optional
        Bond weights. "body-centered cubic" depends on the order of the neighbours, which is that of falling bond weight; neighbours
        of equal weight have no order, and the mean over their orders is taken. Default: all equal.

    Returns
    -------
    ndarray, shape (b, number of order parameters)
        Columns as named in `ORDER_PARAMETERS`; no columns for a coordination number without order parameters.
    """
    total, count = vectors.shape[:2]
    columns = len(ORDER_PARAMETERS.get(count, ()))
    values = np.zeros((total, columns))
    if strengths is None:
        strengths = np.ones((total, count))
    step = max(1, _BLOCK // count**3)
    for start in range(0, total if columns else 0, step):
        part = slice(start, start + step)
        values[part] = np.stack(_evaluate(vectors[part], strengths[part]), axis=1)
    return values


def _evaluate(vectors: Array, strengths: Array) -> list[Array]:
    count = vectors.shape[1]
    if count == 1:
        return [np.ones(len(vectors))]
    if count > 8:
        bond_order = [bond_orientation(vectors, degree) for degree in (2, 4, 6)]
        return [_cuboctahedral(_Environments(vectors)), *bond_order] if count == 12 else bond_order
    env = _Environments(vectors)
    theta = env.fraction
    if count == 2:
        angles = ((0.5, 15.15), (0.5802777777777778, 13.95), (0.666666666667, 13.25), (0.833333333333333, 12.45), (1.0, 8.667))
        return [_gauss(theta[:, 0, 1], *angle) for angle in angles]
    if count == 3:
        return [
            _polar(env, _gauss(theta, 0.66666666667, 17.5), _cos1),
            _polar(env, _gauss(theta, _TETRAHEDRAL, 18.33), _cos1_5),
            _polar(env, _gauss(theta, 0.5, 15.5), _cos1),
        ]
    if count == 4:
        return [
            _two_poles(env, _gauss(theta, 0.5, 17.7), _cos1, 13.5),
            _polar(env, _gauss(theta, _TETRAHEDRAL, 18.5), _cos1_5),
            _two_poles(env, _gauss(theta, 0.5, 27.0), _cos2, 11.5, widest=math.cos(0.75 * math.pi)),
            _two_poles(env, _gauss(theta, 0.5, 15.75), _cos1_5, 12.75),
            _polar(env, _gauss(theta, 0.5, 15.5), _cos1_5),
        ]
    if count == 5:
        nearest = np.where(env.theta <= 0.6 * math.pi, 0.4, 0.8)  # the two angles of a regular pentagon, 72° and 144°
        return [
            _polar(env, _gauss(theta, nearest, 19.333), _cos1),
            _polar(env, _gauss(theta, 0.5, 14.9), _cos2),
            _two_poles(env, _gauss(theta, 0.5, 16.6), _cos1_5, 12.0),
        ]
    if count == 6:
        return [
            _two_poles(env, _gauss(np.abs(theta - 0.5), 0.16666667, 25.0), _cos1, 7.5, south=2.6179938779914944),
            _two_poles(env, _gauss(theta, 0.5, 18.0), _cos2, 15.0),
            _polar(env, _gauss(theta, 0.5, 13.8), _cos2_5),
        ]
    if count == 7:
        return [
            _polar(env, _gauss(theta, 0.5, 12.5), _cos3),
            _two_poles(env, _gauss(theta, 0.5, 14.75), _cos2_5, 12.5),
        ]
    return [_body_centred(env, strengths), _two_poles(env, _gauss(theta, 0.5, 13.6), _cos3, 14.1)]


def _gauss(fraction: Array, target: float | Array, sharpness: float) -> Array:
    return np.exp(-0.5 * (sharpness * (fraction - target)) ** 2)


# Squared cosines of multiples of the azimuth, from its cosine c (Chebyshev polynomials; no arccos needed).
def _cos1(c: Array) -> Array:
    return c * c


def _cos1_5(c: Array) -> Array:
    return 0.5 + c * (2.0 * c * c - 1.5)


def _cos2(c: Array) -> Array:
    return (2.0 * c * c - 1.0) ** 2


def _cos2_5(c: Array) -> Array:
    square = c * c
    return 0.5 + c * ((8.0 * square - 10.0) * square + 2.5)


def _cos3(c: Array) -> Array:
    square = c * c
    return square * (4.0 * square - 3.0) ** 2


def _sum(profile: Array, azimuth: Array) -> Array:
    """Sum over m of profile[j, m] azimuth[j, k, m] without m = k, shape (b, j, k)."""
    own = np.diagonal(azimuth, axis1=2, axis2=3)
    return (azimuth @ profile[..., None])[..., 0] - own * profile


def _best(score: Array, weight: Array, other: Array) -> Array:
    """Largest mean score over all choices of north pole and prime meridian."""
    mean = np.where(other & (weight > 1e-12), score / np.maximum(weight, 1e-12), 0.0)
    return mean.max((1, 2))


def _polar(env: _Environments, profile: Array, azimuth: Callable[[Array], Array]) -> Array:
    """Motifs in which every neighbour has the same rôle as seen from the pole."""
    usable = env.off_axis.astype(float)
    score = profile + usable * _sum(profile * usable, azimuth(env.azimuth))
    weight = 1.0 + usable * (usable.sum(2, keepdims=True) - 1.0)
    return _best(score, weight, env.other)


def _two_poles(
    env: _Environments,
    profile: Array,
    azimuth: Callable[[Array], Array],
    sharpness: float,
    south: float = 0.75 * math.pi,
    widest: float | None = None,
) -> Array:
    """Motifs with neighbours around the equator and perhaps one at the south pole.

    A neighbour farther than `south` (radians) from the north pole is judged as south pole, with the given sharpness; the others by
    profile and azimuth. `widest` is the cosine of an azimuth from which on neighbours do not count.
    """
    at_south = ((env.theta >= south) & env.other).astype(float)
    equator = ((env.theta < south) & env.other).astype(float)
    usable = env.off_axis.astype(float)
    pole = _gauss(env.fraction, 1.0, sharpness) * at_south
    around = equator * usable
    values = azimuth(env.azimuth)
    if widest is None:
        number = around.sum(2, keepdims=True) - around
    else:
        inside = (env.azimuth > widest).astype(float)
        values = values * inside
        number = _sum(around, inside)
    score = equator * (profile + usable * _sum(profile * around, values)) + usable * (pole.sum(2, keepdims=True) - pole)
    weight = equator * (1.0 + usable * number) + usable * (at_south.sum(2, keepdims=True) - at_south)
    return _best(score, weight, env.other)


def _body_centred(env: _Environments, strengths: Array) -> Array:
    """Eight neighbours at the corners of a cube (Peters, J. Chem. Phys. 2009, 131, 244103)."""
    south, count = 2.5261129449194057, 8
    before = strengths[:, :, None] - strengths[:, None, :]
    # Pairs count once, the stronger bond as the pole; equivalent bonds count half each way.
    ordered = np.where(before > _TIE, 1.0, np.where(before < -_TIE, 0.0, 0.5)) * env.other
    at_south = env.theta >= south
    usable = env.off_axis.astype(float)
    bend = (env.theta - 0.5 * math.pi) / math.asin(1 / 3)
    profile = math.exp(0.5) * bend * np.exp(-0.5 * bend * bend) * usable
    side = np.where(env.theta > 0.5 * math.pi, 1.0, -1.0)
    cosine = env.azimuth
    ring = side * usable * _sum(profile, cosine * (4.0 * cosine * cosine - 3.0))
    score = np.where(at_south, 6.0 * _gauss(env.fraction, 1.0, 15.0), ring)
    return (ordered * score).sum((1, 2)) / (0.5 * count * (6 + (count - 2) * (count - 3)))


def _cuboctahedral(env: _Environments) -> Array:
    """Twelve neighbours as in a face-centred cubic crystal."""
    south, upper, lower = 2.792526803190927, 1.3089969389957472, 1.8325957145940461  # 160°, 75°, 105°
    at_south = (env.theta >= south) & env.other
    usable = env.off_axis.astype(float)
    in_band = (env.theta > upper) & (env.theta < lower)
    band = usable * in_band
    above, below = usable * (env.theta < upper), usable * ((env.theta > lower) & (env.theta < south))
    cosine = env.azimuth
    sine = np.sqrt(1.0 - cosine * cosine)
    ring = np.exp(-0.5 * (0.0556 * (sine - 0.81649658)) ** 2)
    score = _sum(band * _gauss(env.fraction, 0.5, 25.5), cosine * cosine)
    score += _sum(above * _gauss(env.fraction, 1 / 3, 31.25) + below * _gauss(env.fraction, 2 / 3, 31.25), ring)
    members = band + above + below
    score = band * score + 1.8 * at_south * _gauss(env.fraction, 1.0, 28.75)
    weight = band * (members.sum(2, keepdims=True) - members) + 1.8 * at_south
    return _best(score, weight, env.other)


@cache
def _legendre_derivatives(degree: int) -> tuple[tuple[Array, float], ...]:
    """Coefficients of the m-th derivative of the Legendre polynomial, and the squared norm of that component, m = 0 … degree."""
    polynomial = np.polynomial.legendre.Legendre.basis(degree).convert(kind=np.polynomial.Polynomial)
    factors = [(1 if m == 0 else 2) * math.factorial(degree - m) / math.factorial(degree + m) for m in range(degree + 1)]
    return tuple((np.asarray(polynomial.deriv(m).coef if m else polynomial.coef), factor) for m, factor in enumerate(factors))


def bond_orientation(vectors: Array, degree: int) -> Array:
    """Bond-orientational order parameter q_l of Steinhardt, Nelson & Ronchetti, Phys. Rev. B 1983, 28, 784.

    Parameters
    ----------
    vectors : ndarray, shape (b, cn, 3), Å
    degree : int
        l, the order of the spherical harmonics.

    Returns
    -------
    ndarray, shape (b,)
        Between 0 and 1.
    """
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    around = unit[..., 0] + 1j * unit[..., 1]
    # The terms are added as squares of sums, not as Legendre polynomials of the angles between bonds, so that a zero stays one.
    power = np.ones_like(around)
    total = np.zeros(len(unit))
    for coefficients, factor in _legendre_derivatives(degree):
        component = (power * np.polynomial.polynomial.polyval(unit[..., 2], coefficients)).mean(1)
        total += factor * (component.real**2 + component.imag**2)
        power = power * around
    return np.sqrt(total)
