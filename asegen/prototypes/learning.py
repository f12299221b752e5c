"""How the ranking is learned: examples are asked for their own prototype, each with its own vote left out.

For the *likely* question every example is a query, half of them with the number of formula units given. For the *stable* one every
composition is a query, all its examples left out, and the answer is the one nearest to the hull.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .ranker import Candidates, Ranker, collect, likeness_to_known, novelty_features, sum_votes
from .table import Family, PrototypeTable

if TYPE_CHECKING:
    from .fit import PrototypeRecipe

_LARGEST_PAIRS = 400_000
_MOST_TAKEN = 3000
#: The lowest entry of a composition counts as its stable crystal up to this energy above the hull, eV/atom.
STABLE_HULL = 0.05
_NEVER = -1e4


@dataclass(frozen=True)
class Task:
    """Queries of one family: what is asked, and the right answers."""

    family: Family
    chosen: Tensor
    """The examples that are the right answers, shape (b,)."""
    left_out: Tensor
    """Examples that must not vote, shape (b, m)."""
    stable: bool
    allowed: Tensor | None
    """Prototypes that stand for election, shape (b, c); None: all."""

    @property
    def elements(self) -> Tensor:
        """Elements of each query, shape (b, k)."""
        return self.family.examples[self.chosen]

    @property
    def right(self) -> Tensor:
        """The right candidate, shape (b,)."""
        owner = self.family.owner[self.chosen]
        return owner * len(self.family.orders) + self.family.same[owner, 0]

    def votes(self, ranker: Ranker) -> Tensor:
        """Votes of all examples, shape (b, p, m)."""
        vote = ranker.metric(self.family, self.elements, repeats=not self.stable, stable=self.stable)
        silent = self.left_out if self.allowed is None else self.left_out | ~self.allowed[:, self.family.owner]
        return vote.masked_fill(silent[:, None], _NEVER)

    def known(self) -> Tensor:
        """Whether another example than those left out has the prototype, shape (b,)."""
        own = self.family.owner[self.chosen]
        return ((self.family.owner == own[:, None]) & ~self.left_out).any(1)


@dataclass(frozen=True)
class Query:
    """A task with what the first stage answers."""

    task: Task
    found: Candidates


def compositions(family: Family) -> np.ndarray:
    """A number for each composition among the examples, shape (m,): equal for equal elements, wherever they sit."""
    examples, ends, first = family.examples.numpy().copy(), [], 0
    for _, same in groupby(family.counts):
        ends.append((first, first + len(list(same))))
        first = ends[-1][1]
    for a, b in ends:
        examples[:, a:b] = np.sort(examples[:, a:b], axis=1)
    return np.unique(examples, axis=0, return_inverse=True)[1].ravel()


def tasks_of(family: Family, random: np.random.Generator, most: int) -> Iterator[Task]:
    """Tasks of a family in random batches, at most so many queries of each question."""
    size = int(max(4, min(64, _LARGEST_PAIRS // (len(family.owner) * len(family.orders)))))
    for number, chosen in enumerate(_batches(np.arange(len(family.owner)), random, most, size)):
        left = torch.zeros(len(chosen), len(family.owner), dtype=torch.bool)
        left[torch.arange(len(chosen)), chosen] = True
        same = family.units[family.owner[chosen]][:, None] == family.units if number % 2 else None
        yield Task(family, chosen, left, False, same)
    number_of = compositions(family)
    hull = family.hull.numpy()
    low = np.flatnonzero(hull < STABLE_HULL)
    order = low[np.lexsort((hull[low], number_of[low]))]
    lowest = order[np.unique(number_of[order], return_index=True)[1]]
    for chosen in _batches(lowest, random, most, size):
        yield Task(family, chosen, torch.from_numpy(number_of[chosen.numpy()][:, None] == number_of), True, None)


def _batches(own: np.ndarray, random: np.random.Generator, most: int, size: int) -> Iterator[Tensor]:
    shuffled = random.permutation(own)[:most]
    for first in range(0, len(shuffled), size):
        yield torch.from_numpy(shuffled[first : first + size])


def train_ranker(ranker: Ranker, table: PrototypeTable, recipe: PrototypeRecipe, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Train both stages and the novelty estimate; returns the mean losses of the passes."""
    random = np.random.default_rng(recipe.seed)
    families = [family for counts in table.counts if (family := table.family(counts)) is not None]
    losses: dict[str, list[float]] = {"kernel": _train_kernel(ranker, families, recipe, random, say)}
    queries, novelty = [], []
    with torch.no_grad():
        for family in families:
            for task in tasks_of(family, random, recipe.queries):
                found = collect(family, task.votes(ranker), task.left_out, task.right, task.stable)
                old = task.known()
                novelty.append((novelty_features(found), (~old).float()))
                if old.any():
                    allowed = task.allowed[old] if task.allowed is not None else None
                    kept = Task(family, task.chosen[old], task.left_out[old], task.stable, allowed)
                    queries.append(Query(kept, Candidates(found.index[old], found.features[old], found.real[old], found.votes[old])))
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
    history = []
    for epoch in range(recipe.kernel_epochs):
        tasks = [task for family in families for task in tasks_of(family, random, recipe.kernel_queries) if task.known().any()]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - epoch / recipe.kernel_epochs)
        total, seen, loss, pending = 0.0, 0, torch.zeros(()), 0
        for step, k in enumerate(random.permutation(len(tasks))):
            known = tasks[k].known()
            log_p = _vote_share(ranker, tasks[k])[known]
            loss, pending = loss - log_p.sum(), pending + len(log_p)
            if pending >= 256 or step == len(tasks) - 1:
                optimizer.zero_grad()
                (loss / pending + 1e-4 * metric.vectors.square().sum(-1).mean()).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, seen = total + float(loss.detach()), seen + pending
                loss, pending = torch.zeros(()), 0
        history.append(round(total / max(seen, 1), 4))
        say(f"kernel, pass {epoch + 1}: loss {history[-1]}")
    return history


def _vote_share(ranker: Ranker, task: Task) -> Tensor:
    """Log share of the votes for the right candidate, shape (b,)."""
    total, _ = sum_votes(task.family, task.votes(ranker))
    return torch.log(total[torch.arange(len(total)), task.right] + 1e-9) - torch.log(total.sum(1))


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
            log_p = network(query.task.family, query.task.elements, query.found).log_softmax(1)
            right = query.found.index == query.task.right[:, None]
            loss, pending = loss - log_p[right].clamp(min=-15).sum(), pending + len(query.task.chosen)
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
            task = query.task
            if task.stable:
                continue
            like = likeness_to_known(task.family, task.elements, query.found, task.left_out)
            own = (like > 0).any(-1).any(-1)
            if own.any():
                log_p = ranker.judge(task.family, task.elements, query.found)
                right = query.found.index == task.right[:, None]
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

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return round(float(closure().detach()), 4)


__all__ = ["STABLE_HULL", "Task", "compositions", "tasks_of", "train_ranker"]
