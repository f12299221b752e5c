"""Learned features of crystals: activations and energies of a small packaged network, for metrics of sets of crystals.

The activations (second to last layer of a CGCNN) are what a Fréchet distance compares, as FID does for pictures (M. Heusel et
al., NeurIPS 2017); the energies are what CDVAE's earth mover's distance compares (T. Xie et al., ICLR 2022), predicted
by one network for the generated and for the reference crystals. A distance says something only beside the same distance
between two sets of real crystals of the same sizes; ``data/model_cards/evaluators.md`` has the errors of the networks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ..errors import CheckpointError, CrystalError

if TYPE_CHECKING:
    from ..networks.cgcnn import CGCNN, LocalGraph

FORMAT = 1
# Crystals that are evaluated together have this many edges at most (a larger one is alone): some 40 of MP-20's size. It bounds
# the memory, and what fits the processor's cache is twice as fast as what does not.
_EDGES = 8_000


@dataclass(frozen=True)
class LearnedFeatures:
    """What an evaluation network says of some crystals, in their order."""

    activations: np.ndarray
    """Second to last layer, shape (b, d), float64; NaN where there is a reason."""
    energies: np.ndarray
    """Predicted energies, shape (b,), eV/atom, float64; NaN where there is a reason."""
    reasons: list[str]
    """Why a crystal has no features (no volume, not finite, far too crowded), or "" where it has."""
    unseen: list[list[str]]
    """Elements of each crystal that the network was never trained on: its numbers are guesses from the periodic table."""

    @property
    def valid(self) -> np.ndarray:
        """Crystals that have features, shape (b,), bool."""
        return np.array([not reason for reason in self.reasons], dtype=bool)


@dataclass(frozen=True)
class Evaluator:
    """An evaluation network and where it comes from."""

    network: CGCNN
    """In double precision."""
    header: dict[str, Any]
    """Data, licence, training and measured errors."""

    @property
    def elements(self) -> set[int]:
        """Atomic numbers that occur in the training data."""
        return {int(z) for z in self.header["data"]["elements"]}


def evaluators() -> dict[str, Path]:
    """Evaluation networks inside the package, name to path."""
    folder = Path(str(files("asegen") / "assets" / "evaluators"))
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def load_evaluator(name: str | Path = "mp20") -> Evaluator:
    """A packaged evaluation network, or one from a file that ``data/train_evaluator.py`` has written.

    Raises
    ------
    CheckpointError
        No such name or file, damaged, or not an evaluation network.
    """
    known = evaluators()
    path = known.get(str(name)) or Path(name)
    if not path.is_file():
        raise CheckpointError(f"no evaluation network {str(name)!r}: neither a file nor one of the packaged names ({', '.join(known)})")
    return _load(path.resolve(), path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _load(path: Path, _changed: int) -> Evaluator:
    import torch
    from safetensors import SafetensorError, safe_open

    from ..networks.cgcnn import CGCNN

    try:
        with safe_open(str(path), framework="pt") as stream:
            header = json.loads((stream.metadata() or {})["asegen"])
            weights = {key: stream.get_tensor(key) for key in stream.keys()}
        if header.get("system") != "evaluator" or header["format"] != FORMAT:
            raise CheckpointError(f"{path} is no evaluation network of format {FORMAT}")
        with torch.random.fork_rng(devices=[]):  # the initial weights, replaced at once, must not move anyone's random numbers
            network = CGCNN(**header["network"]["options"]).double()
        network.load_state_dict(weights)
        float(header["standardisation"]["mean"]), float(header["standardisation"]["std"]), list(header["data"]["elements"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path} is not an evaluation network, or damaged: {reason}") from error
    return Evaluator(network.eval().requires_grad_(False), header)


def learned_features(crystals: Sequence[Atoms], name: str | Path = "mp20", batch_size: int = 256) -> LearnedFeatures:
    """Activations and energies of crystals by a packaged evaluation network.

    Invariant to rotation, translation, order of the atoms and choice of cell (supercells too). Deterministic; every crystal
    gets the same numbers (to rounding in double precision) whatever stands beside it.

    Parameters
    ----------
    crystals : sequence of ase.Atoms
        Of any density and size; crystals that no numbers can be given for get NaN and a reason.
    name : str or path
        ``mp20`` (formation energies, inorganic crystals), ``perov-5`` (heats of formation), ``carbon-24`` (total energies).
    batch_size : int
        Most crystals evaluated together. Memory is bounded whatever it is: large cells are evaluated fewer at a time.

    Returns
    -------
    LearnedFeatures

    Raises
    ------
    CheckpointError
        No such network.
    """
    from ..networks.cgcnn import local_graph

    evaluator = load_evaluator(name)
    width = evaluator.network.output.in_features
    activations = np.full((len(crystals), width), np.nan)
    energies = np.full(len(crystals), np.nan)
    reasons, unseen = [""] * len(crystals), [_unseen(atoms, evaluator.elements) for atoms in crystals]
    members: list[int] = []
    graphs: list[LocalGraph] = []
    edges = 0
    for number, atoms in enumerate(crystals):
        try:
            if len(atoms) and not 1 <= atoms.numbers.min() <= atoms.numbers.max() <= 118:
                raise CrystalError("the crystal has an atom that is not an element")
            graph = local_graph(atoms)
        except CrystalError as error:
            reasons[number] = str(error)
            continue
        if graphs and (len(graphs) >= batch_size or edges + len(graph.source) > _EDGES):
            activations[members], energies[members] = _evaluate(evaluator, graphs)
            members, graphs, edges = [], [], 0
        members.append(number)
        graphs.append(graph)
        edges += len(graph.source)
    if graphs:
        activations[members], energies[members] = _evaluate(evaluator, graphs)
    return LearnedFeatures(activations, energies, reasons, unseen)


def _unseen(atoms: Atoms, seen: set[int]) -> list[str]:
    return [chemical_symbols[z] for z in sorted({int(z) for z in atoms.numbers} - seen) if 0 < z < len(chemical_symbols)]


def _evaluate(evaluator: Evaluator, graphs: Sequence[LocalGraph]) -> tuple[np.ndarray, np.ndarray]:
    import torch

    from ..networks.cgcnn import LocalGraph

    with torch.no_grad():
        activations, energies = evaluator.network(LocalGraph.join(graphs))
    scale = evaluator.header["standardisation"]
    return activations.numpy(), energies.numpy() * scale["std"] + scale["mean"]
