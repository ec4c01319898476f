"""Whatever a kernel is given: an answer, or one line of ValueError that says what was expected."""

import datetime
import re
import warnings

import numpy as np
import pytest
import torch

import manifold_capacity as mc
from manifold_capacity import _input
from manifold_capacity.replica import manifold_analysis_corr

RNG = np.random.default_rng(0)
GOOD = RNG.standard_normal((4, 6, 3)) + 2 * RNG.standard_normal((4, 6, 1))
MIDDLES = GOOD.mean(axis=2).T

KERNELS = {
    "mean field": lambda m, **o: mc.mean_field_capacity(m, **({"n_t": 5} | o)),
    "drop-in": lambda m, **o: manifold_analysis_corr(m, **({"kappa": 0, "n_t": 5} | o)),
    "conic": lambda m, **o: mc.conic_capacity(m, **({"draws": 3} | o)),
    "simulated": lambda m, **o: mc.simulated_capacity(m, **({"draws": 3} | o)),
}
ARRAYS = {
    "correlation": lambda x: mc.center_correlation(x),
    "low rank": lambda x: mc.low_rank(x),
    "anchors": lambda x: mc.anchor_points(x, np.ones((7, 2))),
    "vectors": lambda x: mc.anchor_points(np.ones((6, 3)), x),
}


def values(result):
    return [v for v in (result if isinstance(result, tuple) else result.values())]


def bad_arrays(good):
    """Name and value of arrays that no kernel takes, made of one that all do."""
    masked = np.ma.array(good, mask=np.zeros(good.shape, bool))
    masked[0, 0] = np.ma.masked
    return {
        "masked": masked,
        "complex": good + 1j,
        "text": good.astype(str),
        "bytes": good.astype("S"),
        "dates": good.astype("datetime64[s]"),
        "durations": good.astype("timedelta64[s]"),
        "objects": good.astype(object),
        "none": None,
        "number": 3.0,
        "zero dimensions": np.float64(3),
        "dict": {"a": good},
        "ragged": [[1.0, 2.0], [3.0]],
        "date": datetime.date(2026, 1, 1),
        "nan": np.where(good == good[0, 0], np.nan, good),
        "infinity": np.where(good == good[0, 0], -np.inf, good),
        "structure": np.zeros(3, [("a", float)]),
        "one dimension": good[0],
        "three dimensions": good[None],
        "empty": good[:, :0],
    }


def refusal(function, *arguments, **options):
    """Call, with all warnings as errors, and return the one line of the ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as caught:
            function(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message or "coincide" in message
    assert len(message) < 250
    return message


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("what", bad_arrays(GOOD[0]))
def test_a_bad_manifold_is_named(kernel, what):
    message = refusal(KERNELS[kernel], [GOOD[0], bad_arrays(GOOD[1])[what], GOOD[2]])
    assert message.startswith("manifold 1: expected ")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "manifolds",
    [None, 3, "text", {"a": GOOD[0]}, GOOD[0], [], GOOD[:1], GOOD[:0], GOOD[None], np.float64(2)],
    ids=str,
)
def test_what_is_no_sequence_of_manifolds_is_refused(kernel, manifolds):
    refusal(KERNELS[kernel], manifolds)


@pytest.mark.parametrize("function", ARRAYS)
@pytest.mark.parametrize("what", bad_arrays(MIDDLES))
def test_a_bad_array_is_refused(function, what):
    refusal(ARRAYS[function], bad_arrays(MIDDLES)[what])


@pytest.mark.parametrize("value", [2.5, "30", None, 1 + 0j, True, [3], np.float64(3), np.ones(2)])
def test_a_count_is_a_whole_number(value):
    for option in ("n_t", "seed", "n_reps"):
        message = refusal(mc.mean_field_capacity, GOOD, low_rank="package", **{option: value})
        assert message.startswith(f"{option}: expected a whole number, got ")
    if value is not None:
        message = refusal(mc.mean_field_capacity, GOOD, threads=value)
        assert message.startswith("threads: expected a whole number, got ")


@pytest.mark.parametrize("value", ["0", None, 1 + 0j, np.nan, [0.0, 1.0], {}, 1e200])
def test_a_margin_is_a_finite_number(value):
    for function, given in (
        (mc.mean_field_capacity, (GOOD,)),
        (mc.anchor_points, (np.ones((2, 2)), np.ones((2, 1)))),
    ):
        assert refusal(function, *given, kappa=value).startswith("kappa: expected ")


@pytest.mark.parametrize("value", ["0", None, 1 + 0j, np.nan, np.inf, [0.0, 1.0], {}])
def test_closed_forms_take_finite_numbers(value):
    for function, arguments in (
        (mc.point_capacity, (value,)),
        (mc.ball_capacity, (value, 2, 0)),
        (mc.ball_capacity, (1, value, 0)),
        (mc.ball_capacity, (1, 2, value)),
    ):
        refusal(function, *arguments)
    refusal(mc.ball_capacity, -1, 2)
    refusal(mc.ball_capacity, 1, 0)
    refusal(mc.ball_capacity, 1, 2, 0, value)


@pytest.mark.parametrize("value", [0, 1, "yes", None, np.array([True])])
def test_a_flag_is_true_or_false(value):
    assert "expected True or False" in refusal(mc.mean_field_capacity, GOOD, progress=value)
    given = np.ones((2, 2)), np.ones((2, 1))
    assert "expected True or False" in refusal(mc.anchor_points, *given, multipliers=value)


@pytest.mark.parametrize("value", [True, None, 1, "paper", np.array(["guarded"]), ["guarded"]])
def test_a_word_is_one_of_those_known(value):
    refusal(mc.mean_field_capacity, GOOD, low_rank=value)
    refusal(mc.mean_field_capacity, GOOD, definition=value if value != "paper" else "")


def test_nobody_has_memory_for_so_many_vectors():
    for option, most in (("n_t", 10_000_000), ("n_reps", 10_000)):
        options = {option: np.iinfo(np.int64).max, "low_rank": "package"}
        message = refusal(mc.mean_field_capacity, GOOD, **options)
        assert message.startswith(f"{option}: expected at most {most}, got ")
    for kernel in (mc.simulated_capacity, mc.conic_capacity, mc.glue):
        message = refusal(kernel, GOOD, draws=10**12)
        assert message == "draws: expected at most 10000000, got 1000000000000"


@pytest.mark.parametrize(
    "value", [3, np.array(3), "text", [np.ones((4, 5))] * 3, [None] * 4, {}, iter(())]
)
def test_bad_vectors_are_refused(value):
    assert refusal(mc.mean_field_capacity, GOOD, n_t=5, t_vecs=value).startswith("t_vecs")


LIKE = {
    "list of lists": [m.tolist() for m in GOOD],
    "tuple": tuple(GOOD),
    "float32": GOOD.astype(np.float32),
    "long double": GOOD.astype(np.longdouble),
    "Fortran order": [np.asfortranarray(m) for m in GOOD],
    "strided": [np.repeat(m, 2, axis=1)[:, ::2] for m in GOOD],
    "big endian": GOOD.astype(">f8"),
    "unmasked": np.ma.array(GOOD, mask=False),
    "generator": "generator",
    "tensor": torch.from_numpy(GOOD),
    "tensors with gradient": [torch.from_numpy(m).requires_grad_() for m in GOOD],
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("like", LIKE)
def test_arrays_of_any_make_give_the_same(kernel, like):
    if kernel == "drop-in" and like == "generator":
        pytest.skip("a sequence, as in the package")
    given = (m for m in GOOD) if like == "generator" else LIKE[like]
    rounded = GOOD.astype(np.float32).astype(np.float64) if like == "float32" else GOOD
    for a, b in zip(values(KERNELS[kernel](given)), values(KERNELS[kernel](rounded)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "tensor",
    [torch.bfloat16, torch.float16, torch.float32, torch.int16, torch.bool],
    ids=str,
)
def test_tensors_are_read_in_every_precision(tensor):
    whole = torch.from_numpy(np.round(GOOD[0]))
    expected = whole.to(tensor).to(torch.float64).numpy()
    np.testing.assert_array_equal(_input.real_array("x", whole.to(tensor)), expected)


def test_a_tensor_elsewhere_is_refused():
    message = refusal(mc.center_correlation, torch.ones((3, 4), device="meta"))
    assert "a tensor on meta: move it with .cpu()" in message


def test_a_manifold_of_zeros_does_not_set_the_scale():
    manifolds = [np.zeros((6, 3)), *GOOD[1:]]
    tiny = [manifold * 2.0**-900 for manifold in manifolds]
    reference, theory = (mc.mean_field_capacity(m, n_t=5) for m in (manifolds, tiny))
    np.testing.assert_array_equal(theory.capacity, reference.capacity)
    same = [np.zeros((6, 3))] * 2
    assert "coincides with the global mean" in refusal(mc.mean_field_capacity, same)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 3e-5, 7e4, 1e160, 1e300])
def test_scale_changes_nothing(kernel, scale):
    reference = KERNELS[kernel](GOOD)
    result = KERNELS[kernel](GOOD * scale)
    for name in reference if not isinstance(reference, tuple) else range(len(reference)):
        expected = reference[name] * scale if name == "center_norm" else reference[name]
        if name != "kkt_residual":
            np.testing.assert_allclose(result[name], expected, rtol=1e-6, err_msg=str(name))


@pytest.mark.parametrize("kernel", KERNELS)
def test_scaling_by_a_power_of_two_keeps_every_bit(kernel):
    reference, result = KERNELS[kernel](GOOD), KERNELS[kernel](GOOD * 2.0**400)
    for name in reference if not isinstance(reference, tuple) else range(len(reference)):
        expected = reference[name] * 2.0**400 if name == "center_norm" else reference[name]
        np.testing.assert_array_equal(result[name], expected)


def test_a_power_of_two_brings_values_near_one():
    for exponent in range(-1074, 1024):
        largest = float(np.ldexp(1.0, exponent))
        assert 2.0**-53 <= largest * _input.power_of_two(largest) <= 2
    assert _input.power_of_two(0.0) == 1.0


def test_an_empty_array_has_no_magnitude():
    assert _input.magnitude("x", np.empty((0, 3))) == 0.0


def test_long_values_are_shown_in_brief():
    assert re.fullmatch(r"ndarray array.*\.\.\.", _input.brief(np.arange(1000)))
