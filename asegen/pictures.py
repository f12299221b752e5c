"""Pictures of crystals: shaded spheres and the edges of the cell, painted from the farthest to the nearest.

Drawn with Pillow, not with matplotlib: loading matplotlib alone takes longer than a sheet of pictures does here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from PIL import Image, ImageDraw, ImageFont, ImageOps

TURN = rotate("-80x,15y,0z")
"""Cartesian coordinates (rows) times this: right, up, towards the viewer. The third vector of a right-handed cell points up."""
RADIUS = 0.5
"""Of a sphere, in covalent radii."""
_FINER = 3  # drawn so much larger and reduced at the end: Pillow's own lines and circles have jagged edges
_PIECES = 24  # of an edge; each is behind or in front of a sphere as a whole
_EDGE = (70, 70, 70)


def sheet(crystals: Sequence[Atoms], titles: Sequence[str], tile: tuple[int, int] = (275, 297)) -> Image.Image:
    """Pictures side by side, each below its title of two lines.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
    titles : sequence of str
    tile : tuple of int
        Width and height of a picture and its title, pixels.
    """
    columns = min(6, max(1, int(np.ceil(np.sqrt(len(crystals) * 1.6)))))
    rows = max(1, int(np.ceil(len(crystals) / columns)))
    width, height = tile
    head = 40
    whole = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(whole)
    for number, (atoms, title) in enumerate(zip(crystals, titles, strict=True)):
        left, top = number % columns * width, number // columns * height
        for line, text in enumerate(title.split("\n")):
            shown, font = fitted(text, width - 10)
            pen.text((left + width / 2, top + 6 + 17 * line), shown, "black", font, "ma")
        whole.paste(picture(atoms, (width, height - head)), (left, top + head))
    return whole


def fitted(text: str, width: float, largest: int = 14, smallest: int = 9) -> tuple[str, ImageFont.FreeTypeFont]:
    """A line in the largest font in which it is not wider than so many pixels; cut if it is too long for any."""
    for size in range(largest, smallest - 1, -1):
        if _font(size).getlength(text) <= width:
            return text, _font(size)
    font = _font(smallest)
    kept = next(count for count in range(len(text), -1, -1) if font.getlength(text[:count] + "…") <= width or count == 0)
    return text[:kept] + "…", font


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # always, if a size is given
    return font


def picture(atoms: Atoms, size: tuple[int, int], margin: int = 8) -> Image.Image:
    """One crystal: its cell with the atoms on faces, edges and corners drawn on all of them; up to two atoms: 2 × 2 × 2 cells.

    Parameters
    ----------
    atoms : ase.Atoms
    size : tuple of int
        Width and height, pixels.
    margin : int
        Kept free on each side, pixels.
    """
    points, kinds, frame = arranged(atoms)
    radii = RADIUS * covalent_radii[kinds]
    low = np.minimum((points - radii[:, None]).min(0), frame.min((0, 1)))[:2]
    high = np.maximum((points + radii[:, None]).max(0), frame.max((0, 1)))[:2]
    free = np.array(size) * _FINER - 2 * margin * _FINER
    scale = float((free / np.maximum(high - low, 1e-6)).min())
    centre, middle = (low + high) / 2, np.array(size) * _FINER / 2

    def on_paper(where: np.ndarray) -> np.ndarray:
        return middle + (where[..., :2] - centre) * scale * [1, -1]

    image = Image.new("RGB", (size[0] * _FINER, size[1] * _FINER), "white")
    pen = ImageDraw.Draw(image)
    ends = frame[:, :1] + np.linspace(0, 1, _PIECES + 1)[:, None] * (frame[:, 1:] - frame[:, :1])
    halfway = (ends[:, :-1] + ends[:, 1:]) / 2
    inside = (np.linalg.norm(halfway[:, :, None] - points, axis=-1) < radii).any(-1)
    # a sphere, or a piece of an edge that is not inside one, by depth
    edges = [(halfway[k, i, 2], k, i) for k, i in zip(*np.nonzero(~inside), strict=True)]
    todo = sorted([*edges, *((depth, -1, k) for k, depth in enumerate(points[:, 2]))])
    nearest, depth = points[:, 2].max(), max(np.ptp(points[:, 2]), 1e-6)
    haze = np.round(3 * (nearest - points[:, 2]) / depth).astype(int)
    spheres = on_paper(points)
    lines = on_paper(ends)
    for _, edge, k in todo:
        if edge >= 0:
            pen.line([*lines[edge, k], *lines[edge, k + 1]], _EDGE, _FINER)
        else:
            ball, mask = _ball(int(kinds[k]), max(3, round(2 * radii[k] * scale)), int(haze[k]))
            corner = np.round(spheres[k] - ball.width / 2).astype(int)
            image.paste(ball, (int(corner[0]), int(corner[1])), mask)
    return image.reduce(_FINER)


def arranged(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn, turned to the viewer.

    Returns
    -------
    points : array, shape (n, 3), Å
        Right, up, towards the viewer.
    numbers : array of int, shape (n,)
    edges : array, shape (12, 2, 3), Å
        Ends of the edges of the cells that are drawn, taken as one.
    """
    count = 2 if len(atoms) <= 2 else 1
    cell = atoms.cell.standard_form()[0].array @ TURN
    near = 0.1 / atoms.cell.lengths()  # of a face, to count as on it
    fractions = (atoms.get_scaled_positions() + near) % 1 - near
    shifts = np.array(list(itertools.product(range(count + 1), repeat=3)))
    images = fractions[:, None] + shifts
    drawn = (images <= count + near).all(-1)
    numbers = np.broadcast_to(atoms.numbers[:, None], drawn.shape)[drawn]
    corners = np.array(list(itertools.product((0, count), repeat=3)))
    ends = [(a, b) for a, b in itertools.combinations(corners, 2) if np.count_nonzero(a != b) == 1]
    return images[drawn] @ cell, numbers, np.array(ends) @ cell


@lru_cache(maxsize=64)
def _ball(number: int, width: int, haze: int) -> tuple[Image.Image, Image.Image]:
    """A sphere so many pixels wide in the colour of its element, and where it covers what is behind; far ones are paler."""
    light, mask = _light()
    colour = jmol_colors[number]
    rim, own, bright = (_paler(shade, 0.15 * haze) for shade in (colour * 0.25, colour, colour + (1 - colour) * 0.85))
    light, mask = (image.resize((width, width), Image.Resampling.BILINEAR) for image in (light, mask))
    return ImageOps.colorize(light, rim, bright, own, midpoint=170), mask


def _paler(colour: np.ndarray, part: float) -> tuple[int, ...]:
    """A colour (0 to 1) so far on its way to white, as Pillow wants it."""
    return tuple((255 * (colour + (1 - colour) * part)).astype(int).tolist())


@lru_cache(maxsize=1)
def _light(width: int = 200) -> tuple[Image.Image, Image.Image]:
    """Brightness of a sphere lit from the upper left (170: its own colour; dark rim, so that equal spheres part), and its disc."""
    x, y = np.meshgrid(*2 * [(np.arange(width) + 0.5) * 2 / width - 1])
    distance = np.sqrt(x**2 + y**2)
    z = np.sqrt(np.clip(1 - distance**2, 0, None))
    towards = np.clip(-0.4 * x - 0.5 * y + 0.77 * z, 0, 1)
    brightness = np.where(distance > 0.93, 0.0, 0.35 + 0.32 * towards + 0.33 * towards**12)
    return Image.fromarray((255 * brightness).astype(np.uint8)), Image.fromarray((255 * (distance < 1)).astype(np.uint8))
