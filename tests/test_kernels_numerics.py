"""What ``kernels/NUMERICS.md`` says of errors is so."""

import os

import pytest

from tests import numerics

JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


@pytest.mark.skipif(not JIT, reason="a matter of numbers, not of code paths")
def test_the_numbers_in_the_table_are_measured():
    text = numerics.FILE.read_text()
    lines = text.split(numerics.BEGIN)[1].split(numerics.END)[0].strip().splitlines()[2:]
    stated = dict(line.strip("| ").split(" | ") for line in lines)
    measured = {what: (value, tolerance) for what, value, tolerance in numerics.measured()}
    assert list(stated) == list(measured)
    for what, (value, tolerance) in measured.items():
        if tolerance is None:
            # Rounding differs between processors.
            assert value <= 10 * float(stated[what].removeprefix("below ")), what
        else:
            middle = float(stated[what].split(" ± ")[0])
            assert value == pytest.approx(middle, abs=tolerance + 0.005), what


def test_the_file_is_short():
    assert len(numerics.FILE.read_text().splitlines()) <= 200
