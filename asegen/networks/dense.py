"""The dense network: every atom attends to every other one, through plane waves of their separation.

Made for matmul speed. What an atom pair (i, j) looks like enters as one fixed vector of features e_ij (plane waves
of the fractional difference, Gaussians of the shortest distance), computed once per call. In every layer an atom asks
for neighbours by content and place (``q·k + q_e·e_ij``) and receives their content and place
(``Σ a_ij v_j, Σ a_ij e_ij``), so no learned vector per pair is ever stored and the cost of a layer is that of a few
matrix products per atom. It is exactly invariant to the origin, the order of the atoms, the images they are given in and the
orientation of the crystal; it is not invariant to the choice of cell (it expects standard primitive cells).
Cost: quadratic in the number of atoms.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import NUM_SPECIES, ElementEmbedding, LevelEmbedding, NetworkInput, NetworkOutput


class DenseNetwork(nn.Module):
    """All-pairs transformer for crystals.

    Parameters
    ----------
    width : int
        Length of an atom's vector.
    layers : int
    heads : int
        Attention heads; divides `width`.
    expansion : int
        Hidden width of a layer's perceptron over `width`.
    num_conditions : int
        Length of the condition vector (0: none).
    """

    def __init__(self, width: int = 192, layers: int = 6, heads: int = 8, expansion: int = 3, num_conditions: int = 0) -> None:
        super().__init__()
        self.pairs = PairFeatures()
        self.elements = ElementEmbedding(width)
        self.level = LevelEmbedding(width, num_conditions)
        self.enter = nn.Linear(2 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        self.layers = nn.ModuleList(_Layer(width, heads, self.pairs.size, expansion) for _ in range(layers))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final = nn.Linear(width, 2 * width)
        self.position = nn.Linear(width, 3)
        self.species = nn.Linear(width, NUM_SPECIES)
        self.lattice = nn.Sequential(nn.Linear(3 * width, width), nn.SiLU(), nn.Linear(width, 6))
        for module in (self.modulation, self.final, self.position, self.species, self.lattice[-1]):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Raw outputs for crystals of any sizes."""
        atoms, crystals = self.encode(inputs)
        position = self.position(atoms).float()
        index = torch.repeat_interleave(inputs.num_atoms, output_size=len(atoms))
        mean = position.new_zeros(len(crystals), 3).index_add_(0, index, position) / inputs.num_atoms[:, None]
        return NetworkOutput(position - mean[index], self.lattice(crystals).float(), self.species(atoms).float())

    def encode(self, inputs: NetworkInput) -> tuple[Tensor, Tensor]:
        """Vectors of atoms, shape (n, width), and of crystals, shape (b, 3 width); equal sizes are computed together."""
        if len(inputs.num_atoms) == 1:
            return self._encode_equal(inputs)
        sizes = torch.unique(inputs.num_atoms).tolist()
        if len(sizes) == 1:
            return self._encode_equal(inputs)
        counts = inputs.num_atoms
        atom_size = torch.repeat_interleave(counts, counts, output_size=len(inputs.species))
        atom_order, crystal_order, outputs = [], [], []
        for size in sizes:
            crystals = torch.nonzero(counts == size)[:, 0]
            atoms = torch.nonzero(atom_size == size)[:, 0]
            outputs.append(self._encode_equal(_subset(inputs, atoms, crystals)))
            atom_order.append(atoms)
            crystal_order.append(crystals)
        of_atoms, of_crystals = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return of_atoms[torch.argsort(torch.cat(atom_order))], of_crystals[torch.argsort(torch.cat(crystal_order))]

    def _encode_equal(self, inputs: NetworkInput) -> tuple[Tensor, Tensor]:
        count, size = len(inputs.num_atoms), int(inputs.num_atoms[0])
        dtype, device = self.enter.weight.dtype, inputs.frac.device.type
        # phases reach 12π, so what is known of the geometry needs its digits even where products run in bfloat16
        with torch.autocast(device, enabled=False):
            pairs = self.pairs(inputs.frac.reshape(count, size, 3).to(dtype), inputs.cell.to(dtype))
            level = self.level(inputs)
        species = self.elements(inputs.species).reshape(count, size, -1)
        h = self.enter(torch.cat([species, (species.mean(1) + level)[:, None].expand_as(species)], -1)).to(dtype)
        signal = functional.silu(level)
        if torch.is_autocast_enabled(device):
            pairs = pairs.to(torch.get_autocast_dtype(device))
        shared = self.modulation(signal)
        for layer in self.layers:
            h = layer(h, pairs, shared)
        scale, shift = self.final(signal)[:, None].chunk(2, -1)
        h = self.norm(h) * (1 + scale) + shift
        return h.reshape(count * size, -1), torch.cat([h.mean(1), h.amax(1), level], -1)


class PairFeatures(nn.Module):
    """Fixed features of atom pairs: plane waves of the separation, Gaussians of the shortest distance."""

    def __init__(self, harmonics: int = 6, gaussians: int = 16, reach: float = 6.5) -> None:
        super().__init__()
        self.waves: Tensor
        self.images: Tensor
        self.centres: Tensor
        cube = [v for v in itertools.product((-1, 0, 1), repeat=3) if v > (0, 0, 0)]
        axes = [tuple(m * (k == axis) for k in range(3)) for m in range(2, harmonics + 1) for axis in range(3)]
        self.register_buffer("waves", 2 * torch.pi * torch.tensor(cube + axes, dtype=torch.float32).T, persistent=False)
        images = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=3)))
        self.register_buffer("images", images, persistent=False)
        centres = torch.linspace(0.8, reach, gaussians)
        self.register_buffer("centres", centres, persistent=False)
        self.sharpness = 0.5 / float(centres[1] - centres[0]) ** 2
        self.size = 2 * self.waves.shape[1] + gaussians

    def forward(self, frac: Tensor, cell: Tensor) -> Tensor:
        """Features of all pairs of equal-sized crystals.

        Parameters
        ----------
        frac : Tensor, shape (b, n, 3)
        cell : Tensor, shape (b, 3, 3), Å

        Returns
        -------
        Tensor, shape (b, n, n, size)
        """
        phase = frac @ self.waves.to(frac.dtype)
        sin, cos = phase.sin(), phase.cos()
        # cos and sin of a difference from those of its ends: no trigonometry on pairs
        even = cos[:, :, None] * cos[:, None] + sin[:, :, None] * sin[:, None]
        odd = sin[:, :, None] * cos[:, None] - cos[:, :, None] * sin[:, None]
        distance = self.shortest(frac, cell)
        bumps = torch.exp(-self.sharpness * (distance[..., None] - self.centres.to(frac.dtype)) ** 2)
        return torch.cat([even, odd, bumps], -1)

    def shortest(self, frac: Tensor, cell: Tensor) -> Tensor:
        """Shortest distance from each atom to an image of each other (its own image for i = j), shape (b, n, n), Å.

        Exact for the reduced cells that the network sees; in strongly skewed cells it is the shortest of 27 images.
        """
        metric = cell @ cell.transpose(-1, -2)
        delta = frac[:, :, None] - frac[:, None]
        delta = delta - delta.round()
        images = self.images.to(frac.dtype)
        slanted = delta @ metric[:, None]
        own = (slanted * delta).sum(-1)
        lengths = ((images @ metric) * images).sum(-1)
        squared = own[..., None] + 2 * slanted @ images.T + lengths[:, None, None]
        size = frac.shape[1]
        itself = torch.eye(size, dtype=torch.bool, device=frac.device)[..., None] & torch.all(images == 0, dim=-1)
        return squared.masked_fill(itself, torch.inf).amin(-1).clamp(min=1e-6).sqrt()


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, pair_size: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, 3 * width + heads * pair_size, bias=False)
        self.split = [width, width, width, heads * pair_size]
        self.out = nn.Linear(width + heads * pair_size, width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.bias = nn.Parameter(torch.zeros(6 * width))

    def forward(self, h: Tensor, pairs: Tensor, shared: Tensor) -> Tensor:
        count, size, width = h.shape
        modulation = (shared + self.bias)[:, None].chunk(6, -1)
        x = self.norm(h) * (1 + modulation[0]) + modulation[1]
        query, key, value, place = self.query(x).split(self.split, -1)
        shape = (count, size, self.heads, width // self.heads)
        query, key, value = (z.reshape(shape).transpose(1, 2) for z in (query, key, value))
        place = place.reshape(count * size, self.heads, -1)
        flat = pairs.reshape(count * size, size, -1)
        content = (query @ key.transpose(-1, -2)) * (width // self.heads) ** -0.5
        where = torch.bmm(place, flat.transpose(-1, -2)).reshape(count, size, self.heads, size).transpose(1, 2)
        weight = torch.softmax(content + where * 0.3, -1).to(value.dtype)
        seen = (weight @ value).transpose(1, 2).reshape(count, size, width)
        around = torch.bmm(weight.transpose(1, 2).reshape(count * size, self.heads, size), flat)
        message = self.out(torch.cat([seen, around.reshape(count, size, -1)], -1))
        h = h + (1 + modulation[2]) * message
        x = self.norm(h) * (1 + modulation[3]) + modulation[4]
        return h + (1 + modulation[5]) * self.down(functional.silu(self.up(x)))


def _subset(inputs: NetworkInput, atoms: Tensor, crystals: Tensor) -> NetworkInput:
    return NetworkInput(
        inputs.species[atoms],
        inputs.frac[atoms],
        inputs.cell[crystals],
        inputs.lattice[crystals],
        inputs.num_atoms[crystals],
        inputs.time[crystals],
        inputs.volume[crystals],
        inputs.position_norm[crystals],
        inputs.lattice_alpha[crystals],
        None if inputs.condition is None else inputs.condition[crystals],
    )
