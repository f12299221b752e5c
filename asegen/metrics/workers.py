"""Worker processes that cannot hang a run: every item has a time limit, and a killed worker costs one item."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any

CHUNK = 16


@dataclass(frozen=True)
class Failure:
    """An item without a result."""

    reason: str
    """What happened, in words: the time limit, the exception, or the death of the worker."""
    timed_out: bool = False
    """Whether it was stopped by the time limit (a longer one might help)."""


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Processes that apply one function to many items, each within a time limit.

    A pool of the standard library waits for ever on an item that hangs in compiled code, and loses the whole run when a
    worker is killed. Here the parent watches the clock of every worker: one that is late is killed, its item becomes a
    `Failure`, and the rest of its items go to a new worker.

    Parameters
    ----------
    function : callable
        Applied to each item in a worker; must be importable (a module's function).
    processes : int, optional
        Default: one per core.
    seconds : float
        Time limit for one item.
    """

    def __init__(self, function: Callable[[Any], Any], processes: int | None = None, seconds: float = 60.0):
        self.function = function
        self.processes = max(1, processes or cores())
        self.seconds = seconds
        # Forking starts in milliseconds and runs in scripts without a main guard; elsewhere it is not safe.
        self._context: Any = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def map(self, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """(index, result or `Failure`) for every item, in the order in which they are finished."""
        waiting: deque[tuple[int, Any]] = deque(enumerate(items))
        while len(self._workers) < min(self.processes, len(items)):
            self._workers.append(_Worker(self._context, self.function))
        chunk = max(1, min(CHUNK, len(items) // (4 * self.processes) or 1))
        try:
            while waiting or any(w.items for w in self._workers):
                for worker in self._workers:
                    if not worker.items and waiting:
                        worker.give([waiting.popleft() for _ in range(min(chunk, len(waiting)))])
                busy = [w for w in self._workers if w.items]
                latest = min(w.since for w in busy) + self.seconds
                ready = set(wait([w.connection for w in busy], timeout=max(0.0, latest - time.monotonic())))
                for place, worker in enumerate(self._workers):
                    if worker.connection in ready:
                        try:
                            result = worker.connection.recv()
                        except (EOFError, OSError):
                            worker.process.join(1.0)
                            code = worker.process.exitcode
                            yield self._lost(place, waiting, Failure(f"its worker process died (exit code {code}; out of memory?)"))
                            continue
                        index, _ = worker.items.popleft()
                        worker.since = time.monotonic()
                        yield index, result
                    elif worker.items and time.monotonic() - worker.since > self.seconds:
                        yield self._lost(place, waiting, Failure(f"not done within {self.seconds:g} s", timed_out=True))
        except BaseException:
            # A run that is stopped in the middle must not leave answers behind for the next one.
            self.__exit__(None, None, None)
            raise

    def _lost(self, place: int, waiting: deque[tuple[int, Any]], failure: Failure) -> tuple[int, Failure]:
        worker = self._workers[place]
        worker.kill()
        index, _ = worker.items.popleft()
        waiting.extendleft(reversed(worker.items))
        self._workers[place] = _Worker(self._context, self.function)
        return index, failure


class _Worker:
    def __init__(self, context: Any, function: Callable[[Any], Any]):
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, function), daemon=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads; ours use none
            self.process.start()
        other.close()
        self.items: deque[tuple[int, Any]] = deque()
        self.since = time.monotonic()

    def give(self, items: list[tuple[int, Any]]) -> None:
        self.items.extend(items)
        self.since = time.monotonic()
        try:
            self.connection.send([item for _, item in items])
        except OSError:
            pass  # a dead worker is noticed when its answer is waited for

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, function: Callable[[Any], Any]) -> None:
    warnings.filterwarnings("ignore")
    while True:
        try:
            items = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        for item in items:
            try:
                result = function(item)
            except KeyboardInterrupt:
                return
            except Exception as error:
                result = Failure(f"{type(error).__name__}: {error}".strip())
            connection.send(result)
