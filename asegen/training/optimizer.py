"""Muon for the hidden matrices, AdamW for the rest, behind the interface of one optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Two of torch's optimizers stepped together.

    Muon (orthogonalised momentum) learns the matrices of the layers in fewer steps than AdamW does; embeddings,
    output layers, biases and everything that is not a matrix stay with AdamW, as Muon's authors advise.

    Parameters
    ----------
    module : nn.Module
        Matrices of its ``layers`` go to Muon.
    rate, matrix_rate : float
        Learning rates of AdamW and Muon.
    weight_decay : float
    """

    def __init__(self, module: nn.Module, rate: float, matrix_rate: float, weight_decay: float) -> None:
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and ".layers." in f".{name}"]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=weight_decay, momentum=0.95))
        self._parts.append(torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay))
        super().__init__([{"params": matrices + rest}], {})
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]
