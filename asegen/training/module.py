"""The Lightning module: one loss per batch, averaged weights, everything that a resumed run needs."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import nn

from ..crystals import CrystalBatch
from ..errors import RecipeError
from ..systems.diffusion import DiffusionSystem
from .optimizer import MuonAdamW
from .recipe import Recipe

_VALIDATION_SEED = 20_26


class TrainingModule(lightning.LightningModule):
    """Trains a :class:`DiffusionSystem` by a recipe.

    The noise of a step is drawn from (recipe seed, rank, step), so a run that was killed and resumed sees the very noise
    that an uninterrupted one sees.
    """

    def __init__(self, system: DiffusionSystem, recipe: Recipe) -> None:
        super().__init__()
        self.system = system
        self.recipe = recipe
        self.average = {name: value.detach().clone().float() for name, value in system.network.state_dict().items()}

    def training_step(self, batch: CrystalBatch, _: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(_mix(self.recipe.seed, self.global_rank, self.global_step))
        losses = self.system.loss(batch, generator)
        for name, value in losses._asdict().items():
            self.log(f"train_{name}", value, prog_bar=name != "total", on_step=True, on_epoch=False, batch_size=len(batch))
        return losses.total

    def validation_step(self, batch: CrystalBatch, number: int) -> None:
        generator = torch.Generator().manual_seed(_mix(_VALIDATION_SEED, self.global_rank, number))
        losses = self.system.loss(batch, generator)
        for name, value in losses._asdict().items():
            self.log(f"val_{name}", value, prog_bar=name == "position", batch_size=len(batch), sync_dist=True)

    def on_validation_start(self) -> None:
        self._swap()

    def on_validation_end(self) -> None:
        self._swap()

    @torch.no_grad()
    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        with torch.enable_grad():
            super().optimizer_step(*args, **kwargs)
        # early on the average follows faster, else it would remember the random start for 1/(1-ema) steps
        decay = min(self.recipe.ema, (1 + self.global_step) / (10 + self.global_step))
        for name, value in self.system.network.state_dict().items():
            mean = self.average[name]
            if mean.device != value.device:
                mean = self.average[name] = mean.to(value.device)
            if value.is_floating_point():
                mean.lerp_(value.float(), 1 - decay)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = MuonAdamW(self.system.network, recipe.learning_rate, recipe.matrix_rate, recipe.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        rise = min(1.0, (step + 1) / max(1, recipe.warmup))
        fall = min(1.0, (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps))
        return rise * max(fall, 0.0)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe_hash"] = self.recipe.hash
        checkpoint["average"] = {name: value.cpu() for name, value in self.average.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = checkpoint.get("recipe_hash", self.recipe.hash)
        if found != self.recipe.hash:
            raise RecipeError(
                f"the unfinished run there follows another recipe ({found}, this one is {self.recipe.hash}); "
                "train into another folder, or start anew (--fresh)"
            )
        self.average = dict(checkpoint["average"])

    def _swap(self) -> None:
        """Exchange the weights in training with their average."""
        network: nn.Module = self.system.network
        current = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(self.average)
        self.average = {name: value.float() for name, value in current.items()}

    def transfer_batch_to_device(self, batch: CrystalBatch, device: torch.device, _: int) -> CrystalBatch:
        return batch.to(device)


class StopAfter(lightning.Callback):
    """Ends a run, not the training, after some minutes."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if time.monotonic() > self.end:
            trainer.should_stop = True


def _mix(*parts: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence(parts).generate_state(1)[0])
