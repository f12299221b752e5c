"""Train a checkpoint from a recipe and training arrays; killed runs resume where they were."""

from __future__ import annotations

import logging
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from ..checkpoint import load_checkpoint, read_header, save_checkpoint
from ..crystals import CrystalBatch
from ..datasets import CrystalArrays
from ..errors import DataError, RecipeError
from ..kernels import Schedule
from ..networks import build_network
from ..prior import atomic_volumes
from ..systems.diffusion import DiffusionSystem
from .curves import merge_logs, plot_curves
from .module import StopAfter, TrainingModule
from .recipe import Recipe
from .sampler import SizeGroupedBatches

VALIDATION_CRYSTALS = 2048


class _ByList(torch.utils.data.Dataset):
    """Training arrays fetched a batch at a time."""

    def __init__(self, arrays: CrystalArrays, chosen: np.ndarray) -> None:
        self.arrays, self.chosen = arrays, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, batch: list[int]) -> CrystalBatch:
        return self.arrays.batch(self.chosen[batch])


def train(
    recipe: Recipe,
    data: str | Path,
    out: str | Path,
    *,
    validation: str | Path | None = None,
    device: str = "auto",
    devices: int | str = 1,
    resume: bool = True,
    progress: bool = True,
    max_minutes: float | None = None,
    save_every: int = 200,
) -> Path:
    """Train a checkpoint.

    Parameters
    ----------
    recipe : Recipe
    data, validation : path
        Folders of training arrays (``asegen data convert``). Without `validation` a twentieth of the data is set aside.
    out : path
        Folder for ``NAME.safetensors``, ``metrics.csv``, ``curves.png`` and ``last.ckpt`` (to resume from).
    device : str
        ``auto``, ``cpu``, ``gpu``.
    devices : int or "auto"
        Number of processes (several GPUs: distributed data parallel); "auto": all GPUs.
    resume : bool
        Go on from ``last.ckpt`` in `out` if it is there.
    progress : bool
        Show a progress bar.
    max_minutes : float, optional
        Stop after so many minutes; run again to go on.
    save_every : int
        Steps between states to resume from.

    Returns
    -------
    Path
        The checkpoint written.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    arrays = CrystalArrays.open(data)
    chosen = np.nonzero(arrays.num_atoms <= recipe.max_atoms)[0]
    if len(chosen) == 1 and validation is None:
        raise DataError(f"{data}: one crystal cannot be both trained and validated on")
    if not len(chosen):
        raise DataError(f"{data}: no crystal has at most {recipe.max_atoms} atoms")
    if validation is not None:
        held_arrays = CrystalArrays.open(validation)
        held = np.nonzero(held_arrays.num_atoms <= recipe.max_atoms)[0]
    else:
        held_arrays = arrays
        shuffled = np.random.default_rng(recipe.seed).permutation(chosen)
        count = max(1, len(chosen) // 20) if len(chosen) > 1 else 0
        held, chosen = np.sort(shuffled[:count]), np.sort(shuffled[count:])
    if not len(held):
        raise DataError(f"{validation}: no crystal to validate on has at most {recipe.max_atoms} atoms")
    held = np.random.default_rng(0).permutation(held)[:VALIDATION_CRYSTALS]

    torch.manual_seed(recipe.seed)
    network_info: dict[str, Any]
    base_schedule: dict[str, Any] = {}
    if recipe.initial:
        start = load_checkpoint(recipe.initial)
        network = build_network(start.header["network"]["name"], start.header["network"]["options"])
        network.load_state_dict(start.system.network.state_dict())
        network_info = start.header["network"]
        base_schedule = start.header["schedule"]
        if recipe.network_options and recipe.network_options != network_info["options"]:
            raise RecipeError(f"recipe {recipe.name!r}: network_options differ from those of the initial checkpoint {recipe.initial!r}")
    else:
        network = build_network(recipe.network, recipe.network_options)
        network_info = {"name": recipe.network, "options": recipe.network_options}
    system = DiffusionSystem(network, Schedule(**{**base_schedule, **recipe.schedule}), recipe.free_share)
    module = TrainingModule(system, recipe)

    target, state = out / f"{recipe.name}.safetensors", out / "last.ckpt"
    if not resume and int(os.environ.get("LOCAL_RANK", 0)) == 0:  # other processes of this run start with it set
        for old in (state, target, *out.glob("log*/metrics.csv")):
            old.unlink(missing_ok=True)
    if _finished(target, recipe):
        return target
    # a logger empties its folder when it starts, so every run gets its own; they are merged at the end
    logger = CSVLogger(str(out), name="", version=f"log{len(list(out.glob('log*/metrics.csv')))}")
    keeper = ModelCheckpoint(
        str(out), filename="last", every_n_train_steps=save_every, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[lightning.Callback] = [keeper]
    if max_minutes is not None:
        callbacks.append(StopAfter(max_minutes))
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    warnings.filterwarnings("ignore", message=".*not resumable.*|.*logging interval.*|.*Checkpoint directory.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*|.*LeafSpec.*|.*srun.*|.*isinstance.treespec.*")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = lightning.Trainer(
        accelerator=device,
        devices=devices if device != "cpu" else (1 if devices == "auto" else int(devices)),
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
        check_val_every_n_epoch=max(1, _epochs(recipe, len(chosen)) // 25),
    )
    world, rank = trainer.world_size, trainer.global_rank
    sampler = SizeGroupedBatches(
        arrays.num_atoms[chosen], recipe.batch_size, seed=recipe.seed, rank=rank, world=world, done=lambda: trainer.global_step
    )
    held_sampler = SizeGroupedBatches(held_arrays.num_atoms[held], recipe.batch_size, seed=0, rank=rank, world=world)
    if not len(sampler) or not len(held_sampler):
        raise DataError(f"{len(chosen)} crystals to train on and {len(held)} to validate on are too few for {world} processes")
    began = time.monotonic()
    trainer.fit(
        module,
        DataLoader(_ByList(arrays, chosen), sampler=sampler, batch_size=None),  # type: ignore[arg-type]
        DataLoader(_ByList(held_arrays, held), sampler=held_sampler, batch_size=None),  # type: ignore[arg-type]
        ckpt_path=str(state) if resume and state.is_file() else None,
        weights_only=True,
    )
    trainer.save_checkpoint(state)
    if trainer.global_step < recipe.steps:
        logging.getLogger("asegen").warning("stopped after %d of %d steps; train again to go on", trainer.global_step, recipe.steps)
    system.network.load_state_dict({name: value.cpu() for name, value in module.average.items()})
    header = {
        "name": recipe.name,
        "network": network_info,
        "walk": recipe.walk,
        "data": describe_data(arrays, chosen, recipe),
        "training": {
            # a path would mean nothing elsewhere: name the weights that training started from
            "recipe": {**asdict(recipe), "initial": f"{start.name} {start.hash}" if recipe.initial else ""},
            "recipe_hash": recipe.hash,
            "steps": trainer.global_step,
            "seconds_of_last_run": round(time.monotonic() - began, 1),
            "device": str(trainer.strategy.root_device),
        },
        "metrics": {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val_")},
    }
    if trainer.is_global_zero:
        save_checkpoint(target, system, header)
        merge_logs(out)
        plot_curves(out / "metrics.csv", out / "curves.png", title=recipe.name)
    return target


def _finished(target: Path, recipe: Recipe) -> bool:
    if not target.is_file():
        return False
    training = read_header(target)["training"]
    return training["recipe_hash"] == recipe.hash and training["steps"] >= recipe.steps


def describe_data(arrays: CrystalArrays, chosen: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint's header says of its data, with what de novo generation draws from.

    ``sizes`` gives, for every number of atoms, the share of crystals and the 5, 15, … 95 % quantiles of their reference
    volume per atom (Å³).
    """
    elements: set[int] = set()
    volumes = np.nan_to_num(atomic_volumes(), nan=18.0)
    counts = arrays.num_atoms[chosen]
    per_atom = np.empty(len(chosen))
    for position, crystal in enumerate(chosen):
        numbers = arrays.numbers[arrays.offsets[crystal] : arrays.offsets[crystal + 1]]
        elements.update(np.unique(numbers).tolist())
        per_atom[position] = volumes[numbers].mean()
    sizes = {}
    for size in np.unique(counts):
        members = per_atom[counts == size]
        quantiles = np.quantile(members, np.arange(0.05, 1.0, 0.1))
        sizes[str(int(size))] = {"share": round(len(members) / len(chosen), 6), "volume": [round(float(q), 2) for q in quantiles]}
    return {
        "name": recipe.data_name or str(arrays.meta.get("source", "")),
        "licence": recipe.data_licence,
        "count": len(chosen),
        "max_atoms": int(counts.max()),
        "elements": sorted(elements),
        "sizes": sizes,
    }


def _epochs(recipe: Recipe, crystals: int) -> int:
    return max(1, recipe.steps * recipe.batch_size // crystals)
