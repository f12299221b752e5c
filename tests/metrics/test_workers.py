"""Workers: every item comes back once, late ones are stopped, dead ones cost one item."""

import os
import signal
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
