"""Where tensors live and in what precision networks run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import AsegenError


def resolve_device(device: str | torch.device | None = None) -> torch.device:
    """The device asked for; by default a GPU if there is one, else the CPU.

    Raises
    ------
    AsegenError
        The device does not exist here.
    """
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise AsegenError(f"unknown device {str(device)!r}; known are 'cpu', 'cuda', 'cuda:1', …") from error
    if found.type not in ("cpu", "cuda"):
        raise AsegenError(f"device {str(device)!r} cannot be used: coordinates need double precision; known are 'cpu' and 'cuda'")
    if found.type == "cuda" and torch.cuda.is_available() and (found.index or 0) >= torch.cuda.device_count():
        raise AsegenError(f"device {str(device)!r} was asked for, but there are only {torch.cuda.device_count()} GPUs")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise AsegenError(f"device {str(device)!r} was asked for, but torch {torch.__version__} sees no GPU here")
    return found


@contextmanager
def inference(device: torch.device, precision: str = "float32") -> Iterator[None]:
    """No gradients; matrix products in float32, or in bfloat16 where asked for.

    In float32 a crystal comes out the same in every batch to about 1e-6 of the cell (``tests/test_generation.py``); in bfloat16,
    1.6 to 2 times faster on two cores, about one crystal in a hundred differs by more than 1e-3.
    """
    if precision not in PRECISIONS:
        raise AsegenError(f"unknown precision {precision!r}; known are {', '.join(PRECISIONS)}")
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


PRECISIONS = ("float32", "bfloat16")


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken on the device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2) if hasattr(os, "sysconf") else 2**31
