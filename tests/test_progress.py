"""A bar in a terminal, elsewhere a line a minute."""

import pytest

from logit_distributions import progress


class Clock:
    """A time that passes when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    monkeypatch.setattr("tqdm.std.time", clock)
    return clock


def test_where_there_is_no_terminal_a_line_is_printed_once_a_minute(clock, capsys):
    with progress.Bar(total=10, desc="mine: repro", unit="img") as bar:
        for _ in range(10):
            clock.now += 25
            bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3  # after 75, 150 and 225 seconds
    assert all(line.startswith("logitdist: mine: repro") for line in lines)
    assert [line.split("|")[2].split()[0] for line in lines] == ["3/10", "6/10", "9/10"]


def test_a_short_task_and_a_silent_one_say_nothing(clock, capsys):
    with progress.Bar(total=2) as bar:
        bar.update(2)
        bar.set_postfix(robust="1.0%")
    with progress.Bar(total=2, disable=True) as bar:
        clock.now += 600
        bar.update(2)
    assert list(progress.Bar(range(3), "some")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_in_a_terminal_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Bar(total=2, desc="some") as bar:
        bar.update(2)
    assert "\rsome: 100%" in capsys.readouterr().err
