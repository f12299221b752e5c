"""Worker processes that cannot hang a run: every item has a time limit, and a killed worker costs one item."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import subprocess
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
_READY = "ready"  # what a new worker says first
_WARM_UP = 120.0  # seconds that a worker may take until then
_ORPHANED = 5.0  # an idle worker looks this often, in seconds, whether its parent is still there


@dataclass(frozen=True)
class Failure:
    """An item without a result."""

    reason: str
    """What happened, in words: the time limit, the exception, or the death of the worker."""
    timed_out: bool = False
    """Whether it was stopped by the time limit (a longer one might help)."""


def checked_limit(seconds: float) -> float:
    """The time limit itself.

    Raises
    ------
    ValueError
        It is no positive, finite number.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"a time limit of {seconds:g} s is not possible; it must be a number above 0")
    return seconds


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
    prepare : callable, optional
        Called in every worker before its first item, outside of the time limit: imports that take long.
    fresh : bool
        Start new Python processes with one thread each instead of forking: for work that differentiates with torch, which does
        not survive a fork of a process that has done so before. Where the operating system cannot hand over a pipe (Windows),
        the standard library's way of starting is used.

    Raises
    ------
    ValueError
        The time limit is no positive, finite number.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        processes: int | None = None,
        seconds: float = 60.0,
        prepare: Callable[[], None] | None = None,
        fresh: bool = False,
    ):
        self.fresh = fresh and os.name == "posix"
        self.function = function
        self.processes = max(1, processes or cores())
        self.seconds = checked_limit(seconds)
        self.prepare = prepare
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
            self._workers.append(self._worker())
        chunk = max(1, min(CHUNK, len(items) // (4 * self.processes) or 1))
        try:
            while waiting or any(w.items for w in self._workers):
                for worker in self._workers:
                    if not worker.items and waiting:
                        worker.give([waiting.popleft() for _ in range(min(chunk, len(waiting)))])
                busy = [w for w in self._workers if w.items]
                latest = min(w.since + (0.0 if w.ready else _WARM_UP) for w in busy) + self.seconds
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
                        worker.since = time.monotonic()
                        if not worker.ready:
                            worker.ready = True
                            continue
                        index, _ = worker.items.popleft()
                        yield index, result
                    # an answer may have come while the caller was busy with another one
                    elif worker.items and worker.late(self.seconds) and not worker.connection.poll():
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
        self._workers[place] = self._worker()
        return index, failure

    def _worker(self) -> _Worker:
        return _Worker(None if self.fresh else self._context, self.function, self.prepare)


class _Worker:
    def __init__(self, context: Any, function: Callable[[Any], Any], prepare: Callable[[], None] | None):
        self.connection, other = (context or multiprocessing).Pipe()
        self.process: Any
        if context is None:
            self.process = _Program(other)
            _send(self.connection, (function, prepare))
        else:
            if prepare is not None and context.get_start_method() == "fork":
                prepare()  # what is imported before the fork is imported once for all workers
            self.process = context.Process(target=_serve, args=(other, function, prepare, os.getpid()), daemon=True)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads; ours use none
                self.process.start()
        other.close()
        self.items: deque[tuple[int, Any]] = deque()
        self.since = time.monotonic()
        self.ready = False

    def late(self, seconds: float) -> bool:
        return time.monotonic() - self.since > seconds + (0.0 if self.ready else _WARM_UP)

    def give(self, items: list[tuple[int, Any]]) -> None:
        self.items.extend(items)
        self.since = time.monotonic()
        try:
            _send(self.connection, [item for _, item in items])
        except OSError:
            pass  # a dead worker is noticed when its answer is waited for

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Program:
    """A new Python program with one thread that serves a connection; as much of a process as a worker needs."""

    def __init__(self, connection: Connection):
        handle = connection.fileno()
        code = f"from asegen.metrics.workers import serve_connection; serve_connection({handle}, {os.getpid()})"
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._program = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=(handle,), env={**os.environ, **threads, "PYTHONPATH": paths}, stdin=subprocess.DEVNULL
        )

    @property
    def exitcode(self) -> int | None:
        return self._program.poll()

    def kill(self) -> None:
        self._program.kill()

    def join(self, timeout: float | None = None) -> None:
        try:
            self._program.wait(timeout)
        except subprocess.TimeoutExpired:
            pass


def serve_connection(handle: int, parent: int) -> None:
    """Where a program started by `Workers` begins: receive the function, then serve."""
    connection = Connection(handle)
    try:
        function, prepare = connection.recv()
    except EOFError:
        return
    _serve(connection, function, prepare, parent)


def _send(connection: Connection, message: Any) -> None:
    """As ``connection.send``, with tensors by value: torch would send handles to memory that only a forked process can open."""
    connection.send_bytes(pickle.dumps(message))


def _serve(connection: Connection, function: Callable[[Any], Any], prepare: Callable[[], None] | None, parent: int) -> None:
    warnings.filterwarnings("ignore")
    try:
        if prepare is not None:
            prepare()
        connection.send(_READY)
        while True:
            # A killed parent closes no pipe for good: forked siblings hold its ends too.
            while not connection.poll(_ORPHANED):
                if os.getppid() != parent:
                    return
            for item in connection.recv():
                if os.getppid() != parent:
                    return
                try:
                    result = function(item)
                except Exception as error:
                    result = Failure(f"{type(error).__name__}: {error}".strip())
                _send(connection, result)
    except (EOFError, OSError, KeyboardInterrupt):
        return
