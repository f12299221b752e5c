"""The equivariant network: NequIP's interaction layers on the crystal's graph.

Exactly equivariant under rotation, translation, inversion, permutation and the choice of images; its forces do not depend
on the choice of cell either. Cost linear in the number of atoms, or of orbits if the crystals have a symmetry and the input says so.
The position output is a vector per atom, the lattice output a symmetric strain per crystal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..crystals import CrystalBatch
from ..graphs import Graph, neighbours
from ..lattice import strain_to_log
from ..prior import lattice_tangent_of
from .base import NUM_SPECIES, ElementEmbedding, LevelEmbedding, NetworkInput, NetworkOutput
from .orbits import Orbits, SendFromAll

_LENGTH = 18.0 ** (1 / 3)


class EquivariantNetwork(nn.Module):
    """NequIP layers between an embedding of elements and level and three read-outs.

    Parameters
    ----------
    features : int
        Channels per irreducible representation.
    layers : int
    cutoff : float, Å
    lmax : int
        Highest rotation order of features and edges.
    neighbours : float
        Average number of neighbours, for normalisation.
    num_conditions : int
        Length of the condition vector (0: none).
    """

    def __init__(
        self,
        features: int = 32,
        layers: int = 4,
        cutoff: float = 5.0,
        lmax: int = 1,
        neighbours: float = 28.0,
        num_conditions: int = 0,
    ) -> None:
        super().__init__()
        with _float32():
            self._build(features, layers, cutoff, lmax, neighbours, num_conditions)
        self.cutoff = cutoff
        self.lmax = lmax

    def _build(self, features: int, layers: int, cutoff: float, lmax: int, neighbours: float, num_conditions: int) -> None:
        from e3nn.o3 import Irreps
        from nequip.nn import AtomwiseLinear, ConvNetLayer
        from nequip.nn.embedding import BesselEdgeLengthEncoding, EdgeLengthNormalizer, PolynomialCutoff, SphericalHarmonicEdgeAttrs

        self.elements = ElementEmbedding(features)
        self.level = LevelEmbedding(features, num_conditions, use_lattice=False)
        self.enter = nn.Linear(2 * features, features)
        scalars = Irreps([(features, (0, 1))])
        irreps = {"pos": Irreps("1x1o"), "edge_index": None, "node_attrs": scalars, "node_features": scalars}
        self.lengths = EdgeLengthNormalizer(r_max=cutoff, type_names=["any"], irreps_in=irreps)
        self.radial = BesselEdgeLengthEncoding(cutoff=PolynomialCutoff(6), num_bessels=8, irreps_in=self.lengths.irreps_out)
        self.angular = SphericalHarmonicEdgeAttrs(lmax, irreps_in=self.radial.irreps_out)
        state = self.angular.irreps_out
        hidden = Irreps([(features, (order, (-1) ** order)) for order in range(lmax + 1)])
        self.layers = nn.ModuleList()
        for number in range(layers):
            layer = ConvNetLayer(
                state,
                hidden,
                resnet=number > 0,
                convolution_kwargs={
                    "radial_mlp_depth": 1,
                    "radial_mlp_width": 64,
                    "avg_num_neighbors": neighbours,
                    "use_sc": True,
                    "type_names": ["any"],
                    # the first layer of NequIP expects the features of all senders, not those of the receivers alone
                    "is_first_layer": False,
                },
            )
            layer.conv.ghost_exchange = SendFromAll(state["node_features"])
            state = layer.irreps_out
            self.layers.append(layer)
        self.vector = AtomwiseLinear(irreps_in=state, irreps_out=Irreps("1x1o"), out_field="vector")
        self.scalar = AtomwiseLinear(irreps_in=state, irreps_out=Irreps([(2 * features, (0, 1))]), out_field="scalar")
        width = 2 * features
        self.gain = nn.Linear(features, 1)
        self.species = nn.Sequential(nn.SiLU(), nn.Linear(width, NUM_SPECIES))
        self.edge = nn.Sequential(nn.Linear(2 * width + 8, width), nn.SiLU(), nn.Linear(width, 1))
        self.volume = nn.Sequential(nn.Linear(width + features, width), nn.SiLU(), nn.Linear(width, 1))

    def forward(self, inputs: NetworkInput) -> NetworkOutput:
        """Raw outputs; lattice coordinates are used only to turn strains into them, never as a feature."""
        with torch.autocast(inputs.frac.device.type, enabled=False):
            return self._forward(inputs)

    def _forward(self, inputs: NetworkInput) -> NetworkOutput:
        batch = CrystalBatch(inputs.species, inputs.frac, inputs.cell, inputs.num_atoms)
        index = batch.index
        orbits = Orbits.of(inputs, max(self.lmax, 1), self.enter.weight.dtype)
        first = orbits.first
        graph = neighbours(batch, self.cutoff, None if orbits.turn is None else first)
        vectors = graph.vectors(inputs.frac, inputs.cell)
        level = self.level(inputs)
        # from here on to the read-outs rows are orbits, except for senders, which are atoms
        attributes = self.enter(torch.cat([self.elements(inputs.species[first]), level[index[first]]], -1))
        data = {
            "pos": inputs.frac[first],
            "edge_index": torch.stack([orbits.site[graph.source], graph.target]),
            "edge_vectors": vectors,
            "atom_types": torch.zeros_like(first),
            "node_attrs": attributes,
            "node_features": attributes,
            "orbits": orbits,
        }
        for module in (self.lengths, self.radial, self.angular, *self.layers, self.vector, self.scalar):
            data = module(data)
        scalar = orbits.scalars(data["scalar"])
        gain = functional.softplus(self.gain(level))
        cartesian = orbits.features(data["vector"], self.vector.irreps_out["vector"]) * gain[index]
        # a score has an index below: fractional components are r-components times the lattice vectors
        length = _LENGTH * inputs.num_atoms[index].to(cartesian.dtype) ** (1 / 3)
        position = torch.einsum("ni,nki->nk", cartesian, inputs.cell[index]) / length[:, None]
        mean = torch.zeros(len(batch), 3, dtype=position.dtype, device=position.device).index_add_(0, index, position)
        position = position - (mean / inputs.num_atoms[:, None])[index]
        strain = self._strain(inputs, scalar, level, graph, vectors, data["edge_embedding"], orbits, index)
        lattice = lattice_tangent_of(strain_to_log(strain, inputs.cell))
        return NetworkOutput(position, lattice, orbits.scalars(self.species(data["scalar"])))

    def _strain(
        self,
        inputs: NetworkInput,
        scalar: Tensor,
        level: Tensor,
        graph: Graph,
        vectors: Tensor,
        radial: Tensor,
        orbits: Orbits,
        index: Tensor,
    ) -> Tensor:
        """Symmetric strain per crystal: edges pull along themselves, the mean atom sets the volume."""
        count = len(inputs.num_atoms)
        pull = self.edge(torch.cat([scalar[graph.source], scalar[graph.target], radial], -1))
        unit = vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        dyad = pull[:, :, None] * unit[:, :, None] * unit[:, None, :] * radial[:, :1, None]
        orbit = orbits.site[graph.source]
        total = orbits.sum_tensors(dyad, orbit, index, count)
        # every atom of an orbit has as many edges as the one that was looked at
        per_atom = torch.bincount(orbit, minlength=len(orbits.first))[orbits.site]
        edges = torch.zeros_like(inputs.num_atoms).index_add_(0, index, per_atom).clamp(min=1).to(dyad.dtype)
        pooled = torch.zeros(count, scalar.shape[1], dtype=scalar.dtype, device=scalar.device).index_add_(0, index, scalar)
        pooled = pooled / inputs.num_atoms[:, None]
        swell = self.volume(torch.cat([pooled, level], -1))
        identity = torch.eye(3, dtype=dyad.dtype, device=dyad.device)
        return 3 * total / edges[:, None, None] + 0.2 * swell[:, :, None] * identity


class _float32:
    """Build modules in float32 whatever the process default is; NequIP's own builders change it."""

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)
