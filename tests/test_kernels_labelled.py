"""Manifolds from features and labels; the linear dimension of all data."""

import numpy as np
import pandas as pd
import pytest
import torch

import manifold_capacity as mc
from tests import naive_kernels as naive

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.repeat([0, 1, 2, 5], [6, 7, 8, 9]))
FEATURES = RNG.standard_normal((30, 12)) + 3 * LABELS[:, None]


def rows_of(manifold):
    return {tuple(row) for row in np.asarray(manifold, np.float64).T}


def test_every_label_gets_its_samples():
    labelled = mc.from_labels(FEATURES, LABELS)
    assert [m.shape for m in labelled] == [(12, 6), (12, 7), (12, 8), (12, 9)]
    for label, manifold in zip((0, 1, 2, 5), labelled, strict=True):
        np.testing.assert_array_equal(manifold, FEATURES[label == LABELS].T)


@pytest.mark.parametrize(
    "labels",
    [
        LABELS.astype(str),
        LABELS.astype(np.float32),
        [f"class {label}" for label in LABELS],
        np.array([f"class {label}" for label in LABELS], object),
        torch.from_numpy(LABELS),
        pd.Series(LABELS),
        pd.Categorical(LABELS),
    ],
    ids=lambda given: type(given).__name__,
)
def test_labels_may_be_numbers_or_words(labels):
    for a, b in zip(
        mc.from_labels(FEATURES, labels), mc.from_labels(FEATURES, LABELS), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["frame", "tensor", "gradient", "bfloat16", "float32"])
def test_features_may_be_frames_and_tensors(kind):
    tensor = torch.from_numpy(FEATURES)
    given = {
        "frame": lambda: pd.DataFrame(FEATURES),
        "tensor": lambda: tensor,
        "gradient": lambda: tensor.clone().requires_grad_() * 1,
        "bfloat16": lambda: tensor.to(torch.bfloat16),
        "float32": lambda: FEATURES.astype(np.float32),
    }[kind]()
    expected = FEATURES
    if kind == "bfloat16":
        expected = tensor.to(torch.bfloat16).double().numpy()
    if kind == "float32":
        expected = FEATURES.astype(np.float32)
    for a, b in zip(mc.from_labels(given, LABELS), mc.from_labels(expected, LABELS), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sorted_memory_map_stays_one(tmp_path):
    order = np.argsort(LABELS, kind="stable")
    np.save(tmp_path / "x.npy", FEATURES[order])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    labelled = mc.from_labels(mapped, LABELS[order])
    assert all(np.shares_memory(manifold, mapped) for manifold in labelled)
    reference = mc.mean_field_capacity(mc.from_labels(FEATURES[order], LABELS[order]), n_t=10)
    np.testing.assert_array_equal(
        mc.mean_field_capacity(labelled, n_t=10)["capacity"], reference["capacity"]
    )


def test_points_are_drawn_by_seed_and_without_replacement():
    first, same, other = (
        mc.from_labels(FEATURES, LABELS, points_per_class=4, seed=seed) for seed in (1, 1, 2)
    )
    for a, b, whole in zip(first, same, mc.from_labels(FEATURES, LABELS), strict=True):
        assert a.shape == (12, 4)
        np.testing.assert_array_equal(a, b)
        assert len(rows_of(a)) == 4
        assert rows_of(a) <= rows_of(whole)
    assert any(rows_of(a) != rows_of(b) for a, b in zip(first, other, strict=True))


def test_shuffled_labels_keep_their_numbers_and_lose_their_meaning():
    labelled = mc.from_labels(FEATURES, LABELS, shuffle=True)
    assert [m.shape[1] for m in labelled] == [6, 7, 8, 9]
    everything = set().union(*(rows_of(m) for m in labelled))
    assert everything == rows_of(FEATURES.T)
    assert rows_of(labelled[0]) != rows_of(FEATURES[LABELS == 0].T)


def test_a_projection_is_one_matrix_for_all_and_keeps_inner_products(monkeypatch):
    monkeypatch.setattr("manifold_capacity.labelled.BLOCK", 7)
    wide = RNG.standard_normal((30, 50))
    labelled = mc.from_labels(wide, LABELS, project=20, points_per_class=5)
    plain = mc.from_labels(wide, LABELS, points_per_class=5)
    stacked, flat = np.concatenate(labelled, axis=1), np.concatenate(plain, axis=1)
    matrix = stacked @ np.linalg.pinv(flat)  # on their span
    np.testing.assert_allclose(matrix @ flat, stacked, atol=1e-10)
    many = [mc.from_labels(wide, LABELS, project=20, seed=s)[0] for s in range(200)]
    mean = np.mean([m.T @ m for m in many], axis=0)
    expected = wide[LABELS == 0] @ wide[LABELS == 0].T
    assert np.abs(mean - expected).max() < 0.15 * expected.max()
    for a, b in zip(mc.from_labels(wide, LABELS, project=50), plain, strict=True):
        assert len(a) == len(b) == 50  # nothing to do


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": FEATURES[0]}, r"features: expected an array \(samples, N features\)"),
        ({"features": FEATURES.reshape(30, 3, 4)}, "flatten the features of a sample"),
        ({"features": FEATURES.astype(str)}, "features: expected real numbers"),
        ({"features": None}, "features: expected real numbers, got NoneType"),
        ({"labels": LABELS[:-1]}, "labels: expected one for each of the 30 samples"),
        ({"labels": np.zeros(30)}, "labels: expected at least 2 different ones"),
        ({"labels": np.where(LABELS == 0, np.nan, LABELS)}, "labels: expected numbers or words"),
        ({"labels": [None] * 30}, "labels: expected numbers or words, got dtype object"),
        ({"labels": LABELS.astype(complex)}, "labels: expected numbers or words, got dtype comp"),
        ({"labels": np.ma.array(LABELS, mask=LABELS == 0)}, "labels: expected no masked"),
        ({"labels": [[1], [1, 2]] * 15}, "labels: expected labels, got"),
        ({"points_per_class": 7}, "expected at most 6, the samples of label 0, got 7"),
        ({"points_per_class": 2.5}, "points_per_class: expected a whole number"),
        ({"points_per_class": 0}, "points_per_class: expected at least 1"),
        ({"project": "20"}, "project: expected a whole number"),
        ({"shuffle": 1}, "shuffle: expected True or False"),
        ({"seed": -1}, "seed: expected at least 0"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        mc.from_labels(**({"features": FEATURES, "labels": LABELS} | change))


# Dimension


@pytest.mark.parametrize("shape", [(20, 8), (6, 30)])
def test_dimensions_agree_with_the_naive_twin(shape):
    points = RNG.standard_normal(shape) * np.arange(1, shape[0] + 1)[:, None]
    halves = np.array_split(points, 2, axis=1)
    variances = naive.explained_variances(points)
    expected = variances.sum() ** 2 / (variances**2).sum()
    assert mc.participation_ratio(halves) == pytest.approx(expected)
    for share in (1e-9, 0.5, 0.9, 0.99):
        fewest = mc.explained_variance_dimension(halves, share)
        assert variances[:fewest].sum() >= share * variances.sum()
        assert variances[: fewest - 1].sum() < share * variances.sum()


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_dimensions_in_known_cases(scale):
    line = np.arange(8.0) * np.ones((5, 1)) * scale
    assert mc.participation_ratio([line[:, :4], line[:, 4:]]) == pytest.approx(1)
    assert mc.explained_variance_dimension([line[:, :4], line[:, 4:]], 1.0) == 1
    cross = np.concatenate([np.eye(5), -np.eye(5)], axis=1) * scale
    assert mc.participation_ratio([cross[:, :5], cross[:, 5:]]) == pytest.approx(5)
    assert mc.explained_variance_dimension([cross[:, :5], cross[:, 5:]], 0.6) == 3


def test_dimensions_of_one_point_and_bad_shares():
    with pytest.raises(ValueError, match="expected points that differ"):
        mc.participation_ratio(0.1 * np.ones((2, 4, 3)))
    for share in (0, 1.5, "half"):
        with pytest.raises(ValueError, match="share: expected"):
            mc.explained_variance_dimension(RNG.standard_normal((2, 4, 3)), share)
