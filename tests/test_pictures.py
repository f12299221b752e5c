import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data.colors import jmol_colors
from PIL import Image

from asegen.pictures import TURN, arranged, fitted, picture, sheet

PEROVSKITE = Atoms(
    "SrTiO3",
    scaled_positions=[[1e-9, 0.999999, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
    cell=[3.9, 3.9, 3.9],
    pbc=True,
)
LARGE = Atoms(
    "K4Na2Al8Si6O20", scaled_positions=np.random.default_rng(0).random((40, 3)), cell=[[9, 0, 0], [1, 8, 0], [2, 1, 10]], pbc=True
)
LONG = bulk("Cu", cubic=True) * (1, 1, 10)


def covered(image: Image.Image) -> np.ndarray:
    """Pixels that are not white."""
    return (np.asarray(image) < 250).any(-1)


def share_like(image: Image.Image, number: int) -> float:
    """Share of the pixels that have nearly the hue of an element."""
    pixels = np.asarray(image).reshape(-1, 3) / 255
    colour = jmol_colors[number]
    shadow = pixels - pixels.min(1, keepdims=True)
    lengths = np.linalg.norm(shadow, axis=1)
    own = colour - colour.min()
    return float(((shadow @ own > 0.98 * lengths * np.linalg.norm(own)) & (lengths > 0.2)).mean())


def test_atoms_on_faces_edges_and_corners_are_drawn_on_all_of_them():
    points, numbers, edges = arranged(PEROVSKITE)
    assert {z: int((numbers == z).sum()) for z in (38, 22, 8)} == {38: 8, 22: 1, 8: 6}
    assert edges.shape == (12, 2, 3)
    assert np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1) == pytest.approx(3.9)
    strontium = points[numbers == 38]
    corners = np.unique(np.round(edges.reshape(-1, 3), 3), axis=0)
    assert np.linalg.norm(strontium[:, None] - corners, axis=-1).min(1).max() < 0.01


def test_one_or_two_atoms_are_drawn_in_eight_cells():
    assert len(arranged(Atoms("Po", cell=[3.3] * 3, pbc=True))[1]) == 27
    assert len(arranged(Atoms("CsCl", scaled_positions=[[0] * 3, [0.5] * 3], cell=[4.1] * 3, pbc=True))[1]) == 27 + 8


def test_distances_stay_what_they_are():
    points, numbers, _ = arranged(PEROVSKITE)
    titanium, oxygen = points[numbers == 22][0], points[numbers == 8]
    assert np.linalg.norm(oxygen - titanium, axis=1) == pytest.approx(1.95, abs=1e-4)


@pytest.mark.parametrize("atoms", [PEROVSKITE, LARGE, LONG, bulk("MgO", "rocksalt", a=4.2, cubic=True) * (5, 1, 1), bulk("Cu")])
def test_nothing_is_clipped_and_the_room_is_used(atoms):
    marks = covered(picture(atoms, (275, 257), margin=8))
    rows, columns = np.flatnonzero(marks.any(1)), np.flatnonzero(marks.any(0))
    free = (rows[0], 256 - rows[-1], columns[0], 274 - columns[-1])
    assert min(free) >= 7
    assert max(free[0], free[1]) <= 10 or max(free[2], free[3]) <= 10


def test_atoms_have_the_colours_of_their_elements_and_sizes_of_theirs():
    image = picture(PEROVSKITE, (275, 257))
    assert share_like(image, 38) > 3 * share_like(image, 8) > 0.03  # green; red
    assert share_like(image, 79) < 0.01  # no gold


def test_what_is_nearer_covers_what_is_behind():
    """Oxygen in front of sulfur hides part of it, behind it is hidden."""

    def red(towards: float) -> float:
        cell = np.eye(3) * 12.0
        sulfur = np.array([6.0, 6.0, 6.0])
        atoms = Atoms("SOH", positions=[sulfur, sulfur + towards * TURN[:, 2], [3.0, 3.0, 3.0]], cell=cell, pbc=True)
        return share_like(picture(atoms, (275, 257)), 8)

    assert red(2.0) > 5 * red(-2.0)


def test_edges_of_the_cell_are_drawn_but_not_through_atoms():
    empty = Atoms("H3", scaled_positions=[[0.5] * 3, [0.52] * 3, [0.54] * 3], cell=[20] * 3, pbc=True)
    marks = covered(picture(empty, (275, 257)))
    assert 12 * 60 < marks.sum() < 0.05 * marks.size
    # all edges are inside of spheres
    image = np.asarray(picture(Atoms("Cs3", positions=[[0.0] * 3] * 3, cell=[2.3] * 3, pbc=True), (275, 257))).astype(int)
    assert not ((np.ptp(image, axis=-1) < 8) & (image.max(-1) < 150)).any()


def test_the_third_vector_of_the_cell_points_up():
    atoms = Atoms(
        "HSO", scaled_positions=[[0.5, 0.5, 0.5], [0.5, 0.5, 0.2], [0.5, 0.5, 0.8]], cell=[[9, 0, 0], [0, 9, 0], [1, 0, 9]], pbc=True
    )
    red, green, blue = np.moveaxis(np.asarray(picture(atoms, (275, 257))).astype(int), -1, 0)
    oxygen, sulfur = (red > green + 100) & (red > blue + 100), (green > blue + 100)
    assert oxygen.any() and np.nonzero(oxygen)[0].max() < np.nonzero(sulfur)[0].min()


def test_titles_fit_into_their_tiles():
    text, font = fitted("0: NaCl", 265)
    assert (text, font.size) == ("0: NaCl", 14)
    text, font = fitted("12: K12Na4Al16Si24O80(OH)8F4CaMg", 200)
    assert not text.endswith("…") and 9 <= font.size < 14 and font.getlength(text) <= 200
    text, font = fitted("LiNaKRbCsBeMgCaSrBaBAlGaInTlCSiGeSnPbNPAsSbBiOSSeTeFClBrIScTiVCrMnFeCo", 200)
    assert text.endswith("…") and text.startswith("LiNaK") and font.getlength(text) <= 200


@pytest.mark.parametrize("count", [1, 4, 8, 24])
def test_a_sheet_keeps_its_tiles_apart(count):
    crystals = [(PEROVSKITE, LARGE, LONG)[k % 3] for k in range(count)]
    marks = covered(sheet(crystals, [f"{k}: {'Ab' * 60}\nPm-3m (221)" for k in range(count)]))
    height, width = marks.shape
    assert height % 297 == 0 and width % 275 == 0 and (height // 297) * (width // 275) >= count
    tiles = marks.reshape(height // 297, 297, width // 275, 275)
    assert not tiles[:, :4].any() and not tiles[:, -4:].any() and not tiles[..., :4].any() and not tiles[..., -4:].any()
    assert not tiles[:, 42:46].any()  # between title and picture
    assert int(tiles.any((1, 3)).sum()) == count
