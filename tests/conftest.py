"""Shared pieces: small crystals and a small random checkpoint."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import HealthCheck, settings
from vasp_files import perovskite, write_vasprun  # noqa: F401 (fixtures)

from asegen.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from asegen.networks import build_network
from asegen.prototypes.model import load_prototypes
from asegen.systems.diffusion import DiffusionSystem

torch.set_num_threads(1)
settings.register_profile("asegen", deadline=None, max_examples=20, suppress_health_check=list(HealthCheck), derandomize=True)
settings.load_profile("asegen")


def shaken_network(name: str = "dense", seed: int = 0, **options):
    """An untrained network whose zero-initialised outputs are filled, so that it says something."""
    torch.manual_seed(seed)
    network = build_network(name, options)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(std=0.2)
    return network


def small_header(name: str = "small", network: str = "dense", options: dict | None = None, max_atoms: int = 20) -> dict:
    return {
        "name": name,
        "network": {"name": network, "options": options or {}},
        "walk": {"steps": 6},
        "data": {
            "name": "none",
            "licence": "none",
            "count": 0,
            "max_atoms": max_atoms,
            "elements": list(range(1, 95)),
            "sizes": {"2": {"share": 0.5, "volume": [15.0] * 10}, "4": {"share": 0.5, "volume": list(np.linspace(10, 20, 10))}},
        },
        "training": {"steps": 0, "recipe": {}, "recipe_hash": "0", "device": "cpu"},
        "metrics": {},
    }


OPTIONS = {"width": 32, "layers": 2, "heads": 4}


@pytest.fixture(scope="session")
def small_path(tmp_path_factory):
    """File of an untrained dense checkpoint."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, DiffusionSystem(shaken_network(**OPTIONS)), small_header(options=OPTIONS))
    return path


@pytest.fixture(scope="session")
def small(small_path) -> Checkpoint:
    return load_checkpoint(small_path)


@pytest.fixture(scope="session")
def small_equivariant(tmp_path_factory) -> Checkpoint:
    options = {"features": 8, "layers": 2}
    path = tmp_path_factory.mktemp("checkpoint") / "equivariant.safetensors"
    system = DiffusionSystem(shaken_network("equivariant", **options))
    save_checkpoint(path, system, small_header("equi", "equivariant", options), dtype=torch.float32)
    return load_checkpoint(path)


@pytest.fixture(scope="session")
def small_energy(tmp_path_factory) -> Checkpoint:
    path = tmp_path_factory.mktemp("checkpoint") / "energy.safetensors"
    system = DiffusionSystem(shaken_network("energy", **OPTIONS))
    save_checkpoint(path, system, small_header("energy", "energy", OPTIONS), dtype=torch.float32)
    return load_checkpoint(path)


@pytest.fixture(scope="session")
def packaged_mp20():
    """The packaged prototype model mp20."""
    return load_prototypes("mp20")


@pytest.fixture
def crystal() -> Atoms:
    """Five atoms without symmetry in a skewed cell."""
    random = np.random.default_rng(3)
    cell = np.array([[4.0, 0.1, 0.2], [0.9, 4.4, -0.3], [-0.8, 0.5, 5.1]])
    return Atoms("SrTiO3", scaled_positions=random.random((5, 3)), cell=cell, pbc=True)


@pytest.fixture
def rocksalt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64)
