"""Threads: order, interrupts, progress; memory that is asked for before it is taken."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import manifold_capacity as mc
from manifold_capacity import _parallel, separability


@pytest.mark.parametrize("threads", [1, 3])
def test_results_keep_their_order_and_the_first_error_is_raised(threads):
    assert _parallel.for_each(lambda i: i * i, range(20), threads) == [i * i for i in range(20)]

    def fails(i):
        if i == 3:
            raise ValueError("three")
        return i

    with pytest.raises(ValueError, match="three"):
        _parallel.for_each(fails, range(20), threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_drops_what_has_not_begun_and_ends_what_has(threads):
    begun, ended = [], []

    def task(i):
        begun.append(i)
        if i == 0:
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(200):
            time.sleep(0.01)
            _parallel.may_stop()
        ended.append(i)

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        _parallel.for_each(task, range(1000), threads)
    for thread in set(threading.enumerate()) - before:
        thread.join()
    assert len(begun) <= threads
    assert not ended
    assert _parallel.for_each(abs, [-1, -2], threads) == [1, 2]


def test_a_search_gives_up_once_nobody_waits(monkeypatch):
    monkeypatch.setattr(separability, "stop_flag", lambda: np.ones(1, bool))
    assert mc.separable(np.array([[0.0, 1.0]]), [-1, 1]).separable is None


def test_progress_is_a_line_now_and_then(monkeypatch, capsys):
    clock = iter(np.arange(0.0, 1000.0, 4.0).tolist())
    monkeypatch.setattr(_parallel.time, "monotonic", lambda: next(clock))
    assert list(_parallel.reported(iter("abcdefghijklmnopqrstuvwxyz"), 26, "letters")) == list(
        "abcdefghijklmnopqrstuvwxyz"
    )
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "letters: 3 of 26, about 92 s left",
        "letters: 18 of 26, about 32 s left",
    ]
    assert list(_parallel.reported(iter("abc"), 3, None)) == list("abc")
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    clock = iter(np.arange(0.0, 1000.0, 4.0).tolist())
    monkeypatch.setattr(_parallel.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(_parallel.reported(iter("abcdef"), 6, "letters")) == list("abcdef")
    assert "letters" in capsys.readouterr().err


def test_manifolds_beyond_memory_are_refused_with_what_fits(monkeypatch):
    monkeypatch.setattr(_parallel, "free_memory", lambda: 1e6)
    manifolds = np.broadcast_to(np.float32(1), (100, 2000, 50))
    for function in (mc.conic_capacity, mc.glue, mc.simulated_capacity):
        with pytest.raises(ValueError, match="at most 1 points of each, or a random projection"):
            function(manifolds)


def test_free_memory_is_known_on_linux_only(monkeypatch):
    assert 1e6 < _parallel.free_memory() < 1e15
    monkeypatch.setattr(_parallel, "Path", lambda path: Missing())
    assert _parallel.free_memory() == float("inf")


class Missing:
    def read_text(self):
        raise OSError
