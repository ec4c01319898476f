import json

import pytest
import torch

from logit_distributions import bench, cli

NAMES = ("standard", "adversarial", "distillation", "attack")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    threads = torch.get_num_threads()
    least = bench.Effort(steps=1, warm_up=1, iterations=(1, 2), evaluations=1)
    monkeypatch.setattr(bench, "QUICK", least)
    for name, size in {"MATMUL": 256, "COPIED": 2**20, "ATTACKED": 4}.items():
        monkeypatch.setitem(getattr(bench, name), "cpu", size)
    yield
    torch.set_num_threads(threads)


def forward_flops(width: int) -> int:
    """Two FLOPs for each multiplication of a ResNet-18 on 32 x 32 pixels, layer by layer."""
    total = 2 * 32**2 * 9 * 3 * width
    inputs = width
    for stage in range(4):
        outputs, side = width * 2**stage, 32 // 2**stage
        convolutions = [(inputs, 9), (outputs, 9), (outputs, 9), (outputs, 9)]
        if stage:
            convolutions.append((inputs, 1))
        total += sum(2 * side**2 * size * each * outputs for each, size in convolutions)
        inputs = outputs
    return total + 2 * inputs * bench.CLASSES


def test_bench_prints_every_row_and_writes_every_number(tmp_path, capsys):
    file = tmp_path / "new" / "speed.json"
    command = ["bench", "--quick", "--device", "cpu", "--precision", "float32", "--threads", "1"]
    assert cli.main([*command, "--width", "8", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "cpu" in printed.splitlines()[0]
    assert "1 threads" in printed.splitlines()[0]
    assert "width 8" in printed.splitlines()[0]
    for what in (*(f"{name} epoch of 45,000" for name in NAMES[:3]), "two attacks on 10,000"):
        assert printed.count(what) == 2
    assert printed.count("of it reached") == 4
    assert "nan" not in printed
    measured = json.loads(file.read_text())
    assert (measured["width"], measured["precision"]) == (8, "float32")
    assert measured["device"] in printed
    one = forward_flops(8)
    flops = [45_000 * 3 * one, 45_000 * 23 * one, 45_000 * 3 * one, 10_000 * (404 + 3) * one]
    for name, count in zip(NAMES, flops, strict=True):
        entry = measured[name]
        assert entry["flops"] == count
        assert entry["flops_per_second"] == pytest.approx(count / entry["seconds"][0])
        assert entry["seconds"][0] > 0
        assert entry["plain_seconds"][0] > 0


def test_without_the_official_attacks_the_rest_is_timed(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "METHODS", {})
    machine = bench.Machine("cpu", "float32").resolve()
    rows = list(bench.bench(machine, 8, bench.QUICK))
    assert [row.plain for row in rows] == [None]
    assert "not installed" in "\n".join(bench.table(rows, machine, 8))


def test_what_bounds_is_the_later_of_both_limits():
    times = bench.Timing((4.0, 2.0, 1000.5))
    assert times.median == 4
    assert str(times) == "4 (2 - 1,000)"
    row = bench.Row("x", times, None, "", flops=100, moved=30, peak=50.0, bandwidth=10.0)
    assert (row.speed, row.limits, row.bound) == (25.0, (2.0, 3.0), "bandwidth")


def test_an_evaluation_is_extrapolated_from_two_shorter_ones_and_never_negative():
    assert bench.whole_evaluation(5.0, 7.0, (2, 7)) == pytest.approx(5 + 98 * 2 / 5)
    assert bench.whole_evaluation(5.0, 4.0, (2, 7)) == 5


def test_only_what_follows_the_warm_up_is_timed():
    calls = []
    timed = bench.durations(lambda: calls.append(None), 2, 3, torch.device("cpu"))
    assert len(calls) == 5
    assert len(timed) == 3
    assert all(seconds >= 0 for seconds in timed)
