"""Training a prototype model: sort the training crystals into prototypes, fit their geometries, learn the ranking."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..datasets.arrays import CrystalArrays
from ..errors import DataError
from ..training.recipe import checked_entries, read_toml
from .alignment import Cluster, gather
from .geometry import fit_geometry
from .model import save_prototypes
from .ranker import Candidates, Ranker, collect, likeness_to_known, novelty_features, sum_votes
from .standard import Key, StandardCrystal, standard_crystal
from .table import Family, Prototype, PrototypeTable, environment_of

_LARGEST_PAIRS = 400_000
_MOST_TAKEN = 3000


@dataclass(frozen=True)
class PrototypeRecipe:
    """How to train a prototype model. Every field can stand in the TOML file under its own name."""

    name: str
    """Name of the model."""
    system: str = "prototypes"
    data_name: str = ""
    """What the data are, for the header."""
    data_licence: str = ""
    """Licence of the data, for the header."""
    max_atoms: int = 20
    """Crystals with more atoms are left out."""
    kernel_epochs: int = 6
    """Passes of the first stage."""
    kernel_rate: float = 0.01
    epochs: int = 5
    """Passes of the second stage."""
    rate: float = 2e-3
    networks: int = 3
    """Members of the ensemble."""
    width: int = 32
    hidden: int = 64
    dropout: float = 0.25
    weight_decay: float = 0.1
    queries: int = 4000
    """Most queries of one family in a pass (families of one anonymous formula can hold most of a data set)."""
    processes: int = 2
    """For sorting the crystals into prototypes."""
    seed: int = 0

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all entries."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def read(cls, path: str | Path) -> PrototypeRecipe:
        """Read a TOML recipe.

        Raises
        ------
        RecipeError
            An unknown entry, or one of the wrong type.
        """
        entries, where = read_toml(path)
        return cls(**checked_entries(asdict(cls(name="x")), entries, where))


def train_prototypes(recipe: PrototypeRecipe, data: str | Path, out: str | Path, report: Callable[[str], None] | None = None) -> Path:
    """Train a prototype model.

    Parameters
    ----------
    recipe : PrototypeRecipe
    data : path
        Folder of training arrays (``asegen data convert``).
    out : path
        Folder for ``NAME.safetensors``; its header keeps the losses.
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
    """
    say = report or (lambda line: None)
    begin = time.time()
    torch.manual_seed(recipe.seed)
    arrays = CrystalArrays.open(data)
    clusters, unused = sort_crystals(arrays, recipe, say)
    table = PrototypeTable([prototype_of(cluster) for cluster in clusters])
    say(f"{len(table)} prototypes, {sum(len(p.examples) == 1 for p in table.prototypes)} of them seen once")
    ranker = Ranker(recipe.networks, recipe.width, recipe.hidden, recipe.dropout)
    losses = train_ranker(ranker, table, recipe, say)
    ranker.eval()
    count = sum(len(p.examples) for p in table.prototypes)
    header = {
        "name": recipe.name,
        "ranker": {"networks": recipe.networks, "width": recipe.width, "hidden": recipe.hidden, "dropout": recipe.dropout},
        "data": {
            "name": recipe.data_name,
            "licence": recipe.data_licence,
            "count": count,
            "unused": unused,
            "max_atoms": recipe.max_atoms,
            "prototypes": len(table),
        },
        "training": {"recipe": asdict(recipe), "recipe_hash": recipe.hash, "seconds": round(time.time() - begin), "losses": losses},
        "metrics": {},
    }
    target = Path(out) / f"{recipe.name}.safetensors"
    save_prototypes(target, table, ranker, header)
    return target


# ------------------------------------------------------------------------------------------------------------- prototypes


def sort_crystals(arrays: CrystalArrays, recipe: PrototypeRecipe, say: Callable[[str], None]) -> tuple[list[Cluster], int]:
    """Prototypes of all crystals, in a fixed order, and the number of crystals that have no primitive standard cell."""
    chosen = np.flatnonzero(arrays.num_atoms <= recipe.max_atoms)
    if not len(chosen):
        raise DataError(f"no crystal has at most {recipe.max_atoms} atoms")
    jobs = [
        (np.array(arrays.cell[k], dtype=float), np.array(arrays.frac[s], dtype=float), np.array(arrays.numbers[s], dtype=int))
        for k in chosen
        for s in [slice(arrays.offsets[k], arrays.offsets[k + 1])]
    ]
    by_key: dict[Key, list[tuple[int, StandardCrystal]]] = {}
    with ProcessPoolExecutor(recipe.processes) as pool:
        for k, crystal in zip(chosen, pool.map(_standard, jobs, chunksize=100), strict=True):
            if crystal is not None:
                by_key.setdefault(crystal.key, []).append((int(k), crystal))
        used = sum(len(members) for members in by_key.values())
        say(f"{used} of {len(jobs)} crystals in standard settings, {len(by_key)} combinations of sites")
        groups = sorted(by_key.items(), key=lambda item: (-len(item[1]), item[0]))
        clusters = [c for found in pool.map(gather, [members for _, members in groups], chunksize=4) for c in found]
    if not clusters:
        raise DataError("no crystal has a primitive cell in which its symmetry can be found")
    return clusters, len(jobs) - used


def _standard(job: tuple[np.ndarray, np.ndarray, np.ndarray]) -> StandardCrystal | None:
    return standard_crystal(*job)


def prototype_of(cluster: Cluster) -> Prototype:
    """What is kept of a prototype's examples."""
    return Prototype(
        cluster.key[0],
        cluster.counts,
        fit_geometry(cluster),
        tuple(cluster.swaps),
        environment_of(cluster.slot, cluster.frac, cluster.metric).astype(np.float32),
        np.array([member.elements for member in cluster.members], dtype=np.uint8),
    )


# ---------------------------------------------------------------------------------------------------------------- ranking


@dataclass(frozen=True)
class Query:
    """Examples of one family asked for their own prototype, each with its own vote left out."""

    family: Family
    elements: Tensor
    found: Candidates
    wanted: Tensor
    """The right candidate, shape (b,)."""
    chosen: Tensor
    """The examples, shape (b,)."""


def train_ranker(ranker: Ranker, table: PrototypeTable, recipe: PrototypeRecipe, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Train both stages and the novelty estimate; returns the mean losses of the passes."""
    random = np.random.default_rng(recipe.seed)
    families = [family for counts in table.counts if (family := table.family(counts)) is not None]
    losses: dict[str, list[float]] = {"kernel": _train_kernel(ranker, families, recipe, random, say)}
    queries, novelty = [], []
    with torch.no_grad():
        for family in families:
            repeated = torch.bincount(family.owner)[family.owner] > 1
            for chosen in _batches(family, np.arange(len(family.owner)), random, recipe.queries):
                found, wanted = _ask(ranker, family, chosen, keep=True)
                novelty.append((novelty_features(found), (~repeated[chosen]).float()))
                old = repeated[chosen]
                if old.any():
                    kept = Candidates(found.index[old], found.features[old], found.real[old], found.votes[old])
                    queries.append(Query(family, family.examples[chosen[old]], kept, wanted[old], chosen[old]))
    for number, network in enumerate(ranker.networks):
        losses[f"network {number}"] = _train_network(network, queries, recipe, random, say, f"network {number}")
    losses["taken"] = [_train_taken(ranker, queries)]
    losses["novelty"] = [_train_novelty(ranker.novelty, torch.cat([x for x, _ in novelty]), torch.cat([y for _, y in novelty]))]
    return losses


def _train_kernel(
    ranker: Ranker, families: list[Family], recipe: PrototypeRecipe, random: np.random.Generator, say: Callable[[str], None]
) -> list[float]:
    metric = ranker.metric
    others = [p for name, p in metric.named_parameters() if name != "vectors"]
    optimizer = torch.optim.Adam([{"params": [metric.vectors], "lr": recipe.kernel_rate}, {"params": others, "lr": 2 * recipe.kernel_rate}])
    rates = [group["lr"] for group in optimizer.param_groups]
    known = [np.flatnonzero(torch.bincount(family.owner)[family.owner].numpy() > 1) for family in families]
    history = []
    for epoch in range(recipe.kernel_epochs):
        batches = [(f, c) for f, own in zip(families, known, strict=True) for c in _batches(f, own, random, recipe.queries)]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - epoch / recipe.kernel_epochs)
        total, seen, loss, pending = 0.0, 0, torch.zeros(()), 0
        for step, k in enumerate(random.permutation(len(batches))):
            family, chosen = batches[k]
            log_p = _vote_share(ranker, family, chosen)
            loss, pending = loss - log_p.sum(), pending + len(chosen)
            if pending >= 256 or step == len(batches) - 1:
                optimizer.zero_grad()
                (loss / pending + 1e-4 * metric.vectors.square().sum(-1).mean()).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, seen = total + float(loss.detach()), seen + pending
                loss, pending = torch.zeros(()), 0
        history.append(round(total / max(seen, 1), 4))
        say(f"kernel, pass {epoch + 1}: loss {history[-1]}")
    return history


def _vote_share(ranker: Ranker, family: Family, chosen: Tensor) -> Tensor:
    """Log share of the votes for the right candidate, own vote left out, shape (b,)."""
    vote = ranker.metric(family, family.examples[chosen])
    rows = torch.arange(len(chosen))
    masked = vote.index_put((rows[:, None], torch.arange(len(family.orders))[None], chosen[:, None]), torch.tensor(-1e4))
    total, _ = sum_votes(family, masked)
    return torch.log(total[rows, _right(family, chosen)] + 1e-9) - torch.log(total.sum(1))


def _ask(ranker: Ranker, family: Family, chosen: Tensor, keep: bool) -> tuple[Candidates, Tensor]:
    wanted = _right(family, chosen)
    found = collect(family, ranker.metric(family, family.examples[chosen]), chosen, wanted if keep else None)
    return found, wanted


def _right(family: Family, chosen: Tensor) -> Tensor:
    return family.owner[chosen] * len(family.orders) + family.same[family.owner[chosen], 0]


def _batches(family: Family, own: np.ndarray, random: np.random.Generator, most: int) -> Iterator[Tensor]:
    """Random batches of a family's examples, small enough that all pairs fit into memory."""
    size = int(max(4, min(64, _LARGEST_PAIRS // (len(family.owner) * len(family.orders)))))
    shuffled = random.permutation(own)[:most]
    for first in range(0, len(shuffled), size):
        yield torch.from_numpy(shuffled[first : first + size])


def _train_network(
    network: torch.nn.Module,
    queries: list[Query],
    recipe: PrototypeRecipe,
    random: np.random.Generator,
    say: Callable[[str], None],
    name: str,
) -> list[float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay)
    network.train()
    history = []
    for epoch in range(recipe.epochs):
        total, seen, loss, pending = 0.0, 0, torch.zeros(()), 0
        for step, k in enumerate(random.permutation(len(queries))):
            query = queries[k]
            progress = (epoch + step / len(queries)) / recipe.epochs
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * min(1.0, 1.6 * (1 - progress))
            log_p = network(query.family, query.elements, query.found).log_softmax(1)
            right = query.found.index == query.wanted[:, None]
            loss, pending = loss - log_p[right].clamp(min=-15).sum(), pending + len(query.wanted)
            if pending >= 128 or step == len(queries) - 1:
                optimizer.zero_grad()
                (loss / pending).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                total, seen = total + float(loss.detach()), seen + pending
                loss, pending = torch.zeros(()), 0
        history.append(round(total / max(seen, 1), 4))
        say(f"{name}, pass {epoch + 1}: loss {history[-1]}")
    network.eval()
    return history


def _train_taken(ranker: Ranker, queries: list[Query]) -> float:
    """How much less likely a candidate is that is like a known crystal of the very formula; learned from formulas with several entries."""
    ranker.eval()
    rows: list[tuple[Tensor, Tensor, int]] = []
    with torch.no_grad():
        for query in queries:
            if len(rows) >= _MOST_TAKEN:
                break
            like = likeness_to_known(query.family, query.elements, query.found, query.chosen)
            own = (like > 0).any(-1).any(-1)
            if own.any():
                log_p = ranker.judge(query.family, query.elements, query.found)
                right = query.found.index == query.wanted[:, None]
                rows += [(log_p[k], like[k], int(right[k].int().argmax())) for k in torch.nonzero(own)[:, 0].tolist()]
    if not rows:
        return 0.0
    width = max(len(log_p) for log_p, _, _ in rows)
    padded = torch.stack([torch.nn.functional.pad(log_p, (0, width - len(log_p)), value=-1e4) for log_p, _, _ in rows])
    like = torch.stack([torch.nn.functional.pad(x, (0, 0, 0, width - len(x))) for _, x, _ in rows])
    right = torch.tensor([k for _, _, k in rows])
    optimizer = torch.optim.LBFGS([ranker.taken], max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(padded + like @ ranker.taken, right) + 1e-4 * ranker.taken.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return round(float(closure()), 4)


def _train_novelty(layer: torch.nn.Linear, features: Tensor, new: Tensor) -> float:
    """Logistic regression of 'no other example has this prototype'."""
    features, new = features.detach(), new.detach()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(layer(features)[:, 0], new)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    return round(float(optimizer.step(closure)), 4)  # type: ignore[no-untyped-call]


__all__ = ["PrototypeRecipe", "prototype_of", "sort_crystals", "train_prototypes", "train_ranker"]
