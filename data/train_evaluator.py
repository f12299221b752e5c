"""Train an evaluation network (asegen/networks/cgcnn.py) on a column of energies and write it into the package.

    python data/train_evaluator.py mp20/train.csv.gz formation_energy_per_atom mp20 asegen/assets/evaluators/mp20.safetensors \
        --data "MP-20, training split" --licence "CC BY 4.0 (Materials Project)" --test mp20/val.csv.gz

The last epoch is what is written: nothing is chosen by the crystals held out, so their error is the error on unseen crystals.
A run that is killed, or stopped by --minutes, goes on from its last epoch when the same command is given again.
"""

import argparse
import json
import time
import warnings
from collections import Counter
from pathlib import Path

import lightning.pytorch as lightning
import numpy as np
import torch
from ase import Atoms
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save
from torch.utils.data import DataLoader

from asegen.checkpoint import replacing
from asegen.datasets.readers import read_rows
from asegen.errors import CrystalError
from asegen.networks.cgcnn import CGCNN, LocalGraph, local_graph


def read(path, column):
    """Graphs and energies of the rows that have the column."""
    graphs, energies, without = [], [], Counter()
    for row in read_rows(path):
        value = row.properties.get(column, float("nan"))
        if row.error or not np.isfinite(value):
            without[row.error or f"no {column}"] += 1
            continue
        try:
            graphs.append(local_graph(Atoms(row.numbers, scaled_positions=row.frac, cell=row.cell, pbc=True)).to(torch.float32))
        except CrystalError as error:
            without[str(error)] += 1
            continue
        energies.append(value)
    print(f"{path}: {len(graphs)} rows" + "".join(f"; {n} left out: {reason}" for reason, n in without.items()), flush=True)
    return graphs, np.array(energies)


class Training(lightning.LightningModule):
    """Absolute errors, AdamW, a short rise of the rate and a cosine down to zero."""

    def __init__(self, network, rate, decay, steps):
        super().__init__()
        self.network, self.rate, self.decay, self.steps = network, rate, decay, steps
        self.began, self.losses = time.monotonic(), []

    def training_step(self, batch, _):
        graph, target = batch
        loss = (self.network(graph)[1] - target).abs().mean()
        self.losses.append(float(loss.detach()))
        return loss

    def on_train_epoch_end(self):
        print(f"epoch {self.current_epoch + 1}: loss {np.mean(self.losses):.4f}, {time.monotonic() - self.began:.0f} s", flush=True)
        self.losses.clear()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.rate, total_steps=self.steps, pct_start=0.1, cycle_momentum=False, final_div_factor=1e4
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class StopAfter(lightning.Callback):
    """Ends a run, not the training, with the epoch in which its minutes are over."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60 * minutes

    def on_train_epoch_end(self, trainer, _):
        trainer.should_stop = time.monotonic() > self.end


class Shuffled(torch.utils.data.Sampler):
    """Batches in an order that the seed and the epoch fix, so that a resumed run sees what an unbroken one would have."""

    def __init__(self, count, batch_size, seed):
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 0

    def __len__(self):
        return -(-self.count // self.batch_size)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        yield from np.array_split(order, len(self))


class Graphs(torch.utils.data.Dataset):
    """Graphs and standardised energies, fetched a batch at a time."""

    def __init__(self, graphs, targets):
        self.graphs, self.targets = graphs, torch.tensor(targets, dtype=torch.float32)

    def __len__(self):
        return len(self.graphs)

    def __getitem__(self, batch):
        return LocalGraph.join([self.graphs[i] for i in batch]), self.targets[batch]


def absolute_errors(network, graphs, energies, mean, spread):
    """Of the network in double precision, as :func:`asegen.metrics.learned.learned_features` runs it, eV/atom."""
    with torch.no_grad():
        parts = [network(LocalGraph.join(graphs[i : i + 64]).to(torch.float64))[1] for i in range(0, len(graphs), 64)]
    return np.abs(torch.cat(parts).numpy() * spread + mean - energies)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("column")
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="", help="what the data are, for the header")
    parser.add_argument("--licence", default="", help="licence of the data, for the header")
    parser.add_argument("--test", type=Path, help="another file with the column, to measure the error on")
    parser.add_argument("--held-out", type=float, default=0.05, help="share of the rows that is not trained on")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--decay", type=float, default=1e-2)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", type=json.loads, default={}, help="of the network, JSON")
    parser.add_argument("--run", type=Path, help="folder for the state to resume from (default: runs/evaluator-NAME)")
    args = parser.parse_args()
    run = args.run or Path("runs") / f"evaluator-{args.name}"
    warnings.filterwarnings("ignore", module="lightning.*|torch.*")

    graphs, energies = read(args.csv, args.column)
    order = np.random.default_rng(args.seed).permutation(len(graphs))
    held = order[: round(args.held_out * len(graphs))]
    chosen = order[len(held) :]
    mean, spread = float(energies[chosen].mean()), float(energies[chosen].std())
    elements = sorted({int(z) for i in chosen for z in graphs[i].species})

    lightning.seed_everything(args.seed, verbose=False)
    network = CGCNN(**args.options)
    with torch.no_grad():  # an element never trained on is what the periodic table says of it, without a random correction
        network.embedding.learned.weight[[z for z in range(119) if z not in elements]] = 0.0
    sampler = Shuffled(len(chosen), args.batch_size, args.seed)
    module = Training(network, args.rate, args.decay, args.epochs * len(sampler))
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=args.epochs,
        gradient_clip_val=1.0,
        logger=False,
        callbacks=[ModelCheckpoint(str(run), filename="last", enable_version_counter=False), StopAfter(args.minutes)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = Graphs([graphs[i] for i in chosen], (energies[chosen] - mean) / spread)
    state = run / "last.ckpt"
    loader = DataLoader(data, sampler=sampler, batch_size=None)
    trainer.fit(module, loader, ckpt_path=str(state) if state.is_file() else None, weights_only=True)
    if trainer.current_epoch < args.epochs:
        print(f"stopped after {trainer.current_epoch} of {args.epochs} epochs; give the same command again to go on")
        return

    weights = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    network.double().eval()
    errors = {}
    if len(held):
        errors["held out"] = (f"{100 * args.held_out:.0f} % of these rows, not trained on", [graphs[i] for i in held], energies[held])
    if args.test:
        errors["test"] = ("/".join(args.test.parts[-2:]), *read(args.test, args.column))
    metrics = {}
    for key, (what, some, truth) in errors.items():
        wrong = absolute_errors(network, some, truth, mean, spread)
        metrics[key] = {
            "what": what,
            "n": len(truth),
            "mae": round(float(wrong.mean()), 5),
            "median": round(float(np.median(wrong)), 5),
            "rmse": round(float(np.sqrt((wrong**2).mean())), 5),
            "mae_of_the_mean": round(float(np.abs(truth - mean).mean()), 5),
        }
    header = {
        "format": 1,
        "system": "evaluator",
        "name": args.name,
        "network": {"name": "cgcnn", "options": args.options},
        "standardisation": {"mean": mean, "std": spread, "unit": "eV/atom"},
        "data": {
            "name": args.data,
            "column": args.column,
            "licence": args.licence,
            "count": len(chosen),
            "elements": elements,
            "max_atoms": max(len(graphs[i].species) for i in chosen),
        },
        "training": {
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "rate": args.rate,
            "decay": args.decay,
            "held_out": args.held_out,
            "seed": args.seed,
            "device": "cpu",
        },
        "metrics": metrics,
    }
    with replacing(args.out) as stream:
        stream.write(save(weights, metadata={"asegen": json.dumps(header)}))
    print(json.dumps(metrics, indent=1), f"\n{args.out}: {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
