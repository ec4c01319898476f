"""The public package's functions: the same meaning, by stored draws and slow definitions."""

import numpy as np
import pytest
import torch
from torch import nn

from manifold_capacity import replica
from tests import naive_kernels as naive


class Numbered:
    """Sixty examples, each its own number, of labels 0 to 4."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        return torch.tensor([float(i)]), (7 * i) % 5


# What the package drew, run on `Numbered` (numpy's generator keeps its stream for ever).
DRAWN = {
    (3, 4, 5): [[45, 40, 10, 35], [31, 26, 11, 46], [43, 53, 33, 28]],
    (5, 3, None): [[45, 40, 10], [31, 26, 11], [43, 53, 33], [29, 34, 54], [47, 22, 2]],
    (2, 6, 5): [[45, 40, 10, 35, 30, 55], [31, 26, 11, 46, 41, 16]],
}


@pytest.mark.parametrize("arguments", DRAWN, ids=str)
def test_examples_are_those_that_the_package_draws(arguments):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - which the package sets
    batches = replica.make_manifold_data(Numbered(), *arguments)
    assert [batch[:, 0].int().tolist() for batch in batches] == DRAWN[arguments]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    other = replica.make_manifold_data(Numbered(), *arguments, seed=1)
    assert [batch[:, 0].int().tolist() for batch in other] != DRAWN[arguments]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 2, 5), "max_class: expected at least 6 classes, got 5"),
        ((5, 12, 5), "examples_per_class: expected more than 12 x 5 examples in the dataset"),
        ((6, 9, 6), r"expected 9 examples of each sampled class, got \{.*5: 0\}"),
        ((2.5, 2), "sampled_classes: expected a whole number"),
    ],
)
def test_classes_and_examples_may_be_too_few(arguments, message):
    with pytest.raises(ValueError, match=message):
        replica.make_manifold_data(Numbered(), *arguments)


@pytest.mark.parametrize("shape", [(5, 20, 6), (8, 30, 2), (4, 5, 9)])
@pytest.mark.parametrize("perc", [0.5, 0.9])
def test_the_dimension_of_all_data_is_the_packages(shape, perc):
    rng = np.random.default_rng(0)
    manifolds = rng.standard_normal(shape) * np.arange(1, shape[1] + 1)[:, None] + 1
    dimensions = replica.alldata_dimension_analysis(list(manifolds), perc)
    assert dimensions == pytest.approx(
        naive.package_dimensions(np.concatenate(list(manifolds), axis=1), perc)
    )


def test_points_on_a_line_have_no_such_dimension():
    with pytest.raises(ValueError, match="expected points that differ in at least 2 directions"):
        replica.alldata_dimension_analysis(np.ones((2, 1, 3)) * np.arange(3))


class Spoiling(nn.Module):
    """A network that works in place, and calls a layer twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))
        self.last = nn.Tanh()

    def forward(self, x):
        return self.last(self.last(self.block(self.first(x))))


def test_activations_have_the_packages_names_and_are_copies():
    torch.manual_seed(0)
    model, batches = Spoiling(), [torch.randn(5, 3), torch.randn(2, 3)]
    activations = replica.extractor(model, batches)
    assert list(activations) == [
        "layer_0_Input", "layer_1_Linear", "layer_2_ReLU", "layer_3_Linear", "layer_4_Tanh",
    ]  # fmt: skip
    linear = [model.first(batch).detach().numpy() for batch in batches]
    for a, b in zip(activations["layer_1_Linear"], linear, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        assert (a < 0).any()  # not what the ReLU made of it
    assert [len(a) for a in activations["layer_4_Tanh"]] == [5, 5, 2, 2]
    assert not any(m._forward_hooks for m in model.modules())
    assert list(replica.extractor(model, batches, layer_nums=[1, 3])) == [
        "layer_0_Input", "layer_1_Linear", "layer_3_Linear",
    ]  # fmt: skip
    assert list(replica.extractor(model, batches, layer_types=["Tanh"])) == [
        "layer_0_Input", "layer_4_Tanh",
    ]  # fmt: skip


class Pair(nn.Module):
    def forward(self, x):
        return x, x


def test_an_extractor_takes_one_selection_and_modules_that_return_tensors():
    with pytest.raises(ValueError, match="expected layer_nums or layer_types, got both"):
        replica.extractor(Spoiling(), [], [1], ["Tanh"])
    pair = Pair()
    with pytest.raises(ValueError, match="layer_1_Pair: expected a tensor, got tuple"):
        replica.extractor(pair, [torch.ones(2, 3)])
    assert not pair._forward_hooks


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, ["layer_0_Input", "layer_1_Flatten", "layer_2_Linear"]),
        ({"layer_nums": [0, 2]}, ["layer_0_Input", "layer_2_Linear"]),
        ({"layer_types": ["Linear"]}, ["layer_2_Linear"]),
    ],
)
def test_an_analysis_is_the_packages_by_its_steps(options, layers):
    torch.manual_seed(0)
    inputs, labels = torch.randn(80, 2, 5, 5), torch.arange(80) % 4
    dataset = torch.utils.data.TensorDataset(inputs, labels)
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 30)).eval()
    analysed = replica.analyze(
        model, dataset, 4, 6, n_t=20, projection_dimension=40, cuda=False, **options
    )
    assert list(analysed) == layers
    batches = replica.make_manifold_data(dataset, 4, 6)
    draws = np.random.RandomState(0)
    for layer, points in replica.extractor(model, batches, **options).items():
        flat = [p.reshape(6, -1).T.astype(float) for p in points]
        if len(flat[0]) > 40:
            matrix = draws.randn(40, len(flat[0]))
            matrix = [row / np.sqrt(row @ row) for row in matrix]
            flat = [np.array(matrix) @ p for p in flat]
        if layer not in layers:
            continue
        capacity, radius, dimension, correlation, rank = replica.manifold_analysis_corr(
            flat, 0, 20, n_reps=1
        )
        each = analysed[layer]
        np.testing.assert_allclose(each["capacity"], capacity, rtol=1e-4)
        np.testing.assert_allclose(each["radius"], radius, rtol=1e-4)
        np.testing.assert_allclose(each["dimension"], dimension, rtol=1e-4)
        assert each["correlation"] == pytest.approx(correlation)
        assert (each["K"], each["feature dimension"]) == (rank, len(flat[0]))
