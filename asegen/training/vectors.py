"""Train a diffusion of structure vectors (system `structrepdiff`); killed runs resume where they were."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from ..checkpoint import replacing
from ..datasets import CrystalArrays
from ..descriptors.structure_vector import StructureVector, ead_of
from ..errors import CrystalError, DataError, RecipeError
from ..networks.unet1d import UNet1D
from ..structrep.model import read_structrep_header, save_structrep
from ..systems.structrepdiff import CosineSchedule, Sampler, Scaling, VectorDiffusion
from .curves import merge_logs
from .module import StopAfter
from .sampler import SizeGroupedBatches

_VALIDATION_SEED = 20_26
_CHUNK = 64
"""Crystals encoded at once."""


@dataclass(frozen=True)
class VectorRecipe:
    """How to train a `structrepdiff` model. Every field can stand in the TOML file under its own name."""

    name: str
    """Name of the model."""
    system: str = "structrepdiff"
    data_name: str = ""
    """What the data are, for the header."""
    data_licence: str = ""
    """Licence of the data, for the header."""
    max_atoms: int = 20
    """Crystals with more atoms are left out."""
    ead: dict[str, Any] = field(
        default_factory=lambda: {
            "orders": [0, 1, 2, 3],
            "radial": [[3.0, 1.0 + 0.5 * k] for k in range(12)],
            "cutoff": 8.0,
            "directions": True,
        }
    )
    """The descriptor: orders, radial (pairs of η in Å⁻² and centre in Å), cutoff in Å, directions."""
    network_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of :class:`asegen.networks.unet1d.UNet1D`."""
    diffusion_steps: int = 2000
    prediction: str = "v"
    """``v`` or ``noise``."""
    sampler: dict[str, Any] = field(default_factory=dict)
    """Arguments of :class:`asegen.systems.structrepdiff.Sampler`."""
    steps: int = 8000
    """Optimizer steps."""
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: int = 100
    """Steps over which the rate rises from zero."""
    decay: float = 0.5
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones kept."""
    clip: float = 1.0
    """Largest gradient norm."""
    precision: str = "bf16-mixed"
    seed: int = 0

    def __post_init__(self) -> None:
        for entry in ("steps", "batch_size", "max_atoms"):
            if getattr(self, entry) < 1:
                raise RecipeError(f"recipe {self.name!r}: {entry} = {getattr(self, entry)} must be at least 1")
        if not 0 <= self.decay <= 1:
            raise RecipeError(f"recipe {self.name!r}: decay = {self.decay} must lie in [0, 1]")
        ead_of(self.ead)
        try:
            Sampler(**self.sampler)
        except TypeError as error:
            raise RecipeError(f"recipe {self.name!r}: sampler: {error}") from error

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all entries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path) -> VectorRecipe:
        """Read a TOML recipe.

        Raises
        ------
        RecipeError
            An unknown entry, or one of the wrong type.
        """
        from .recipe import checked_entries, read_toml

        entries, where = read_toml(path)
        return cls(**checked_entries(asdict(cls(name="x")), entries, where))


class VectorModule(lightning.LightningModule):
    """Trains a :class:`VectorDiffusion`; the noise of a step is drawn from (recipe seed, rank, step)."""

    def __init__(self, diffusion: VectorDiffusion, recipe: VectorRecipe) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.recipe = recipe
        self.average = {name: value.detach().clone().float() for name, value in diffusion.network.state_dict().items()}

    def training_step(self, batch: Tensor, _: int) -> Tensor:
        loss = self.diffusion.loss(batch, _generator(self.recipe.seed, self.global_rank, self.global_step))
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Tensor, number: int) -> None:
        loss = self.diffusion.loss(batch, _generator(_VALIDATION_SEED, self.global_rank, number))
        # merge_logs tells rows of validation by the name val_total
        self.log("val_total", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

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
        for name, value in self.diffusion.network.state_dict().items():
            mean = self.average[name] = self.average[name].to(value.device)
            mean.lerp_(value.float(), 1 - decay)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        parameters = self.diffusion.network.parameters()
        optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=recipe.weight_decay)
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
        current = {name: value.detach().clone() for name, value in self.diffusion.network.state_dict().items()}
        self.diffusion.network.load_state_dict(self.average)
        self.average = {name: value.float() for name, value in current.items()}


class _Rows(torch.utils.data.Dataset):
    """Rows of a matrix fetched a batch at a time."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, batch: list[int]) -> Tensor:
        return self.rows[batch]


def train_vectors(
    recipe: VectorRecipe,
    data: str | Path,
    out: str | Path,
    *,
    validation: str | Path | None = None,
    device: str = "auto",
    resume: bool = True,
    progress: bool = True,
    max_minutes: float | None = None,
    save_every: int = 500,
    report: Callable[[str], None] | None = None,
) -> Path:
    """Train a `structrepdiff` model.

    Parameters
    ----------
    recipe : VectorRecipe
    data, validation : path
        Folders of training arrays (``asegen data convert``). Without `validation` a twentieth of the data is set aside.
    out : path
        Folder for ``NAME.safetensors``, ``metrics.csv``, the vectors, and ``last.ckpt`` (to resume from).
    device : str
        ``auto``, ``cpu``, ``gpu``.
    resume : bool
        Go on from ``last.ckpt`` in `out` if it is there.
    progress : bool
        Show a progress bar.
    max_minutes : float, optional
        Stop after so many minutes; run again to go on.
    save_every : int
        Steps between states to resume from.
    report : callable, optional
        Gets a line about every stage.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    DataError
        No crystal could be used.
    RecipeError
        `out` holds an unfinished run of another recipe.
    """
    out, say = Path(out), report or (lambda line: None)
    out.mkdir(parents=True, exist_ok=True)
    target, state = out / f"{recipe.name}.safetensors", out / "last.ckpt"
    if not resume:
        for old in (state, target, *out.glob("log*/metrics.csv")):
            old.unlink(missing_ok=True)
    if target.is_file():
        training = read_structrep_header(target)["training"]
        if training["recipe_hash"] == recipe.hash and training["steps"] >= recipe.steps:
            return target
    arrays = CrystalArrays.open(data)
    layout = layout_of(arrays, recipe)
    vectors = encoded(arrays, layout, out, say)
    if validation is not None:
        held = encoded(CrystalArrays.open(validation), layout, out, say)
    else:
        shuffled = torch.from_numpy(np.random.default_rng(recipe.seed).permutation(len(vectors)))
        cut = max(1, len(vectors) // 20)
        held, vectors = vectors[shuffled[:cut]], vectors[shuffled[cut:]]
    if not len(vectors) or not len(held):
        raise DataError(f"{data}: {len(vectors)} crystals to train on and {len(held)} to validate on are too few")
    torch.manual_seed(recipe.seed)
    scaling = Scaling.of(vectors, [layout.composition])
    try:
        network = UNet1D(layout.size, **recipe.network_options)
    except TypeError as error:
        raise RecipeError(f"recipe {recipe.name!r}: network_options: {error}") from error
    diffusion = VectorDiffusion(network, scaling, CosineSchedule(recipe.diffusion_steps), recipe.prediction)
    module = VectorModule(diffusion, recipe)
    trainer = _trainer(recipe, out, device, progress, max_minutes, save_every, len(vectors))
    batches = SizeGroupedBatches(np.zeros(len(vectors)), recipe.batch_size, 1, recipe.seed, done=lambda: trainer.global_step)
    held_batches = SizeGroupedBatches(np.zeros(len(held)), 256, 1)
    began = time.monotonic()
    trainer.fit(
        module,
        DataLoader(_Rows(scaling.forward(vectors)), sampler=batches, batch_size=None),  # type: ignore[arg-type]
        DataLoader(_Rows(scaling.forward(held)), sampler=held_batches, batch_size=None),  # type: ignore[arg-type]
        ckpt_path=str(state) if resume and state.is_file() else None,
        weights_only=True,
    )
    trainer.save_checkpoint(state)
    if trainer.global_step < recipe.steps:
        logging.getLogger("asegen").warning("stopped after %d of %d steps; train again to go on", trainer.global_step, recipe.steps)
    diffusion.network.load_state_dict({name: value.cpu() for name, value in module.average.items()})
    header = {
        "name": recipe.name,
        "network": {"name": "unet1d", "options": recipe.network_options},
        "sampler": asdict(Sampler(**recipe.sampler)),
        "data": {
            "name": recipe.data_name or str(arrays.meta.get("source", "")),
            "licence": recipe.data_licence,
            "count": len(vectors),
            "elements": list(layout.elements),
            "max_atoms": layout.max_atoms,
        },
        "training": {
            "recipe": asdict(recipe),
            "recipe_hash": recipe.hash,
            "steps": trainer.global_step,
            "seconds_of_last_run": round(time.monotonic() - began, 1),
            "device": str(trainer.strategy.root_device),
        },
        "metrics": {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val_")},
    }
    save_structrep(target, diffusion, layout, header)
    merge_logs(out)
    return target


def layout_of(arrays: CrystalArrays, recipe: VectorRecipe) -> StructureVector:
    """The vectors' layout for some training data: their elements and their largest number of atoms (at most the recipe's)."""
    chosen = arrays.num_atoms <= recipe.max_atoms
    if not chosen.any():
        raise DataError(f"no crystal has at most {recipe.max_atoms} atoms")
    elements = np.unique(arrays.numbers[np.repeat(chosen, arrays.num_atoms)])
    return StructureVector(ead_of(recipe.ead), tuple(int(z) for z in elements), int(arrays.num_atoms[chosen].max()))


def encoded(arrays: CrystalArrays, layout: StructureVector, folder: Path, say: Callable[[str], None]) -> Tensor:
    """Vectors of all crystals that fit a layout, float32; computed once and kept in `folder`."""
    content = hashlib.sha256(json.dumps(layout.describe(), sort_keys=True).encode())
    for part in (arrays.numbers, arrays.frac, arrays.cell, arrays.offsets):
        content.update(np.ascontiguousarray(part).tobytes())
    path = folder / f"vectors-{content.hexdigest()[:16]}.npy"
    if path.is_file():
        return torch.from_numpy(np.load(path, allow_pickle=False))
    known = np.isin(arrays.numbers, layout.elements)
    foreign = np.add.reduceat(~known, arrays.offsets[:-1]) > 0
    fitting = np.flatnonzero((arrays.num_atoms <= layout.max_atoms) & ~foreign)
    parts = []
    for start in range(0, len(fitting), _CHUNK):
        try:
            parts.append(layout.encode(arrays.batch(fitting[start : start + _CHUNK]).to(dtype=torch.float64)).float())
        except CrystalError as error:
            raise DataError(f"crystals {start} to {start + _CHUNK} of the data have no descriptor: {error}") from error
        if start % (64 * _CHUNK) == 0:
            say(f"vectors: {start} of {len(fitting)} crystals")
    vectors = torch.cat(parts) if parts else torch.zeros(0, layout.size)
    with replacing(path) as stream:
        np.save(stream, vectors.numpy(), allow_pickle=False)
    say(f"vectors: {len(vectors)} crystals, {len(arrays) - len(fitting)} left out (too large, or elements not in the training data)")
    return vectors


def _trainer(
    recipe: VectorRecipe, out: Path, device: str, progress: bool, max_minutes: float | None, save_every: int, count: int
) -> lightning.Trainer:
    # a logger empties its folder when it starts, so every run gets its own; they are merged at the end
    logger = CSVLogger(str(out), name="", version=f"log{len(list(out.glob('log*/metrics.csv')))}")
    keeper = ModelCheckpoint(
        str(out), filename="last", every_n_train_steps=save_every, save_on_train_epoch_end=False, enable_version_counter=False
    )
    callbacks: list[lightning.Callback] = [keeper]
    if max_minutes is not None:
        callbacks.append(StopAfter(max_minutes))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    warnings.filterwarnings("ignore", message=".*not resumable.*|.*logging interval.*|.*Checkpoint directory.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*LeafSpec.*|.*srun.*|.*isinstance.treespec.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    epochs = max(1, recipe.steps * recipe.batch_size // count)
    return lightning.Trainer(
        accelerator=device,
        devices=1,
        precision=recipe.precision,  # type: ignore[arg-type]
        max_steps=recipe.steps,
        max_epochs=-1,
        gradient_clip_val=recipe.clip,
        logger=logger,
        callbacks=callbacks,
        log_every_n_steps=20,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_progress_bar=progress,
        check_val_every_n_epoch=max(1, epochs // 15),
    )


def _generator(*parts: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))


__all__ = ["VectorModule", "VectorRecipe", "encoded", "layout_of", "train_vectors"]
