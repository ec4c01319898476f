"""Tables and figures side by side: in order, as from one process, or in a line why not."""

from __future__ import annotations

import os
import signal

import pytest

from logit_distributions.errors import ReproError
from logit_distributions.store import places
from paper import artefacts
from tests import toy_results


def _process(item: int) -> tuple[int, int]:
    return item, os.getpid()


def _killed_at_two(item: int) -> int:
    if item == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def test_results_come_in_order_from_other_processes(two_processes):
    items, processes = zip(*artefacts.side_by_side(_process, range(6)), strict=True)
    assert items == tuple(range(6))
    assert 1 <= len(set(processes)) <= 2
    assert os.getpid() not in processes


def test_a_single_item_or_processor_needs_no_other_process(monkeypatch):
    assert list(artefacts.side_by_side(_process, [7])) == [(7, os.getpid())]
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert list(artefacts.side_by_side(_process, [1, 2])) == [(1, os.getpid()), (2, os.getpid())]


def test_a_killed_process_is_one_line(two_processes):
    with pytest.raises(ReproError, match="one of 2 processes was killed; likely out of memory"):
        list(artefacts.side_by_side(_killed_at_two, range(4)))


def test_several_processes_write_what_one_does(two_processes, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    toy_results.write(tmp_path / "data")
    names, made = ["table1", "figure2", "beyond.calibration"], {}
    for processes in (2, 1):
        monkeypatch.setattr(artefacts, "PROCESSES", processes)
        monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build" / str(processes)))
        assert artefacts.make(names) == 0
        said = capsys.readouterr().out.replace(str(places.build()), "")
        files = sorted(path for path in places.build().rglob("*") if path.is_file())
        contents = {path.relative_to(places.build()): path.read_bytes() for path in files}
        made[processes] = said, contents
    assert made[1] == made[2]
    assert len(made[1][1]) == 4 + 3 + 4 + 3


def test_what_is_missing_is_named_and_fails_only_if_it_was_asked_for(
    two_processes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("REPRO_BUILD", str(tmp_path / "build"))
    names = ["table1", "beyond.masking"]
    assert artefacts.make(names) == 0
    assert artefacts.make(names, named=["beyond.masking"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.partition(":")[0] for line in lines] == names + names
    assert all("make it with 'logitdist make" in line for line in lines)
