"""Networks: noisy crystal, level and condition in, raw outputs out."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import MissingPackageError, RecipeError
from .base import Network, NetworkInput, NetworkOutput

NETWORKS = ("dense", "equivariant", "energy")


def build_network(name: str, options: dict[str, Any]) -> nn.Module:
    """A network by name, with the options of its class.

    Raises
    ------
    RecipeError
        Unknown name or option.
    """
    kind: type[nn.Module]
    if name == "dense":
        from .dense import DenseNetwork as kind
    elif name == "equivariant":
        from .equivariant import EquivariantNetwork as kind
    elif name == "energy":
        from .energy import EnergyNetwork as kind
    else:
        raise RecipeError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    try:
        return kind(**options)
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"network {name!r} needs {error.name}; install it with: pip install 'asegen[equivariant]'") from error
    except TypeError as error:
        raise RecipeError(f"network {name!r}: {error}") from error


__all__ = ["NETWORKS", "Network", "NetworkInput", "NetworkOutput", "build_network"]
