"""Workers: every item comes back once, late ones are stopped, dead ones cost one item."""

import os
import signal
import subprocess
import sys
import time

import pytest

from asegen.metrics.workers import Failure, Workers


def double(x):
    return 2 * x


def odd(x):
    if x == "sleep":
        time.sleep(60)
    if x == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if x == "raise":
        raise ValueError("no good")
    return x


@pytest.mark.parametrize("processes", [1, 3])
def test_every_item_once(processes):
    with Workers(double, processes) as workers:
        found = dict(workers.map(list(range(100))))
        assert found == {i: 2 * i for i in range(100)}
        assert dict(workers.map([7])) == {0: 14}  # the same workers again
        assert dict(workers.map([])) == {}


def test_late_and_dead_items_cost_only_themselves():
    items = ["a", "sleep", "b", "die", "c", "raise", *"defghij"]
    started = time.monotonic()
    with Workers(odd, 2, seconds=1.0) as workers:
        found = dict(workers.map(items))
    assert time.monotonic() - started < 15
    for i, item in enumerate(items):
        if len(item) == 1:
            assert found[i] == item
        else:
            assert isinstance(found[i], Failure)
    assert found[1].timed_out and "1 s" in found[1].reason
    assert not found[3].timed_out and "died" in found[3].reason
    assert found[5].reason == "ValueError: no good"


def test_a_run_that_is_left_early_leaves_no_answers_behind():
    with Workers(double, 2) as workers:
        for index, value in workers.map(list(range(50))):
            assert value == 2 * index
            break
        assert dict(workers.map([100, 200])) == {0: 200, 1: 400}


def nap(seconds):
    time.sleep(seconds)
    return seconds


def test_a_slow_caller_makes_no_item_late():
    found = {}
    with Workers(nap, 2, seconds=0.5) as workers:
        for index, result in workers.map([0.05, 0.1, 0.05, 0.1]):
            found[index] = result
            time.sleep(0.8 if index == 0 else 0.0)  # as a store that another process has locked
    assert found == {0: 0.05, 1: 0.1, 2: 0.05, 3: 0.1}


def slow_import():
    time.sleep(1.0)


def test_imports_do_not_count_against_the_first_item(monkeypatch):
    with Workers(nap, 1, seconds=0.4, prepare=slow_import) as workers:
        # as where processes are not forked and import everything themselves
        monkeypatch.setattr(workers._context, "get_start_method", lambda: "spawn", raising=False)
        assert dict(workers.map([0.01, 0.02])) == {0: 0.01, 1: 0.02}


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_number_above_zero(seconds):
    with pytest.raises(ValueError, match="above 0"):
        Workers(double, 1, seconds)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_workers_end_when_their_parent_is_killed():
    program = (
        "import os, sys, time\n"
        "import asegen.metrics.workers as w\n"
        "w._ORPHANED = 0.2\n"
        "with w.Workers(abs, 2) as workers:\n"
        "    list(workers.map([1, 2, 3, 4]))\n"
        "    print(*[x.process.pid for x in workers._workers], flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(pids) == 2 and not any(map(running, pids))


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
