"""The first few of the random inputs of ``make fuzz``."""

import pytest

from tests import fuzz_kernels


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_random_inputs_give_sense_or_one_clear_line(first, capsys):
    failures = fuzz_kernels.main(100, first)
    assert not failures, capsys.readouterr().out


def test_what_the_fuzz_calls_nonsense(monkeypatch, capsys):
    """It can fail: results out of bounds, other errors, and results that depend on scale."""
    manifolds = fuzz_kernels.cloud(fuzz_kernels.np.random.default_rng(0), degenerate=False)
    for value, message in ((-1.0, "is negative"), (float("nan"), "is NaN"), (1.5, "is over one")):
        nonsense = fuzz_kernels.nonsense(None, (manifolds,), {}, {"0": value, "correlation": value})
        assert message in (nonsense or "") or (value == 1.5 and nonsense is None)
    _, failure = fuzz_kernels.call(lambda: 1 / 0, (), {})
    assert failure.startswith("unclear: ZeroDivisionError")
    _, failure = fuzz_kernels.call(int, ("x",), {})
    assert failure.startswith("unclear: ValueError")
    rng = fuzz_kernels.np.random.default_rng(0)
    changed = fuzz_kernels.moved(lambda m: m[0].sum(), (manifolds,), {}, manifolds[0].sum(), rng)
    assert "changes with scale" in changed
